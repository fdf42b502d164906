"""Update files whose tensors are not the model's, or do not lie where and as they should."""

from tests.aggregation.hostile.forgery import Case, Forgery, Spoil, cases
from tests.aggregation.hostile.headers import data, entry, header, text

ALIAS = "fc.tied"
"""The other name of fc.weight in the corpus's model; it does not travel."""


def also(name: str, dtype: str = "F32", shape: tuple[int, ...] = (2,)) -> Spoil:
    """A tensor more, zeros, at the end of the file."""

    def spoil(forgery: Forgery) -> None:
        begin = len(forgery.data)
        end = begin + 4 * shape[0]
        new = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        forgery.write({**forgery.header, name: new}, forgery.data + bytes(end - begin))

    return spoil


def moved(tensor: str, by: int) -> Spoil:
    return header(
        lambda document: document[tensor].update(
            data_offsets=[at + by for at in document[tensor]["data_offsets"]]
        )
    )


def without_bias(forgery: Forgery) -> None:
    """Honest in everything, only that one tensor is not there."""
    document = forgery.header
    begin, end = document.pop("fc.bias")["data_offsets"]
    for other in document.values():
        if other["data_offsets"][0] >= end:
            other["data_offsets"] = [at - (end - begin) for at in other["data_offsets"]]
    forgery.write(document, forgery.data[:begin] + forgery.data[end:])


def named(old: str, new: str) -> Spoil:
    """A tensor under another name."""
    return header(lambda document: document.update({new: document.pop(old)}))


def over_another(forgery: Forgery) -> None:
    """One tensor's bytes are the first of another's, too."""
    begin = forgery.header["fc.weight"]["data_offsets"][0]
    entry("fc.bias", data_offsets=[begin, begin + 40])(forgery)


LAYOUTS: tuple[Case, ...] = cases(
    [
        ("shape is negative", entry("fc.bias", shape=[-10]), "HeaderInvalid"),
        ("shape is negative twice", entry("fc.weight", shape=[-10, -64]), "HeaderInvalid"),
        ("shape is 10.0", entry("fc.bias", shape=[10.0]), "HeaderInvalid"),
        ("shape is true", entry("fc.bias", shape=[True, 10]), "HeaderInvalid"),
        ("shape is text", entry("fc.bias", shape="10"), "HeaderInvalid"),
        ("shape is NaN", text(lambda t: t.replace(b"[10]", b"[NaN]")), "HeaderInvalid"),
        (
            "shape overflows 64 bits to the true count",
            entry("fc.bias", shape=[2**62, 8, 10]),
            "LayoutInvalid|HeaderInvalid",
        ),
        ("shape is beyond 64 bits", entry("fc.bias", shape=[2**64 + 10]), "HeaderInvalid"),
        (
            "shape has a thousand dimensions",
            entry("fc.bias", shape=[1] * 999 + [10]),
            "HeaderInvalid",
        ),
        ("shape is transposed", entry("fc.weight", shape=[64, 10]), "SchemaMismatch"),
        ("shape is flat", entry("fc.weight", shape=[640]), "SchemaMismatch"),
        ("shape has an axis of one more", entry("fc.bias", shape=[1, 10]), "SchemaMismatch"),
        ("scalar is a list of one", entry("bn.num_batches_tracked", shape=[1]), "SchemaMismatch"),
        ("offsets are three", entry("fc.bias", data_offsets=[0, 40, 40]), "HeaderInvalid"),
        ("offsets are negative", entry("fc.bias", data_offsets=[-40, 0]), "HeaderInvalid"),
        (
            "offsets are backwards",
            entry("fc.bias", data_offsets=[40, 0]),
            "LayoutInvalid|HeaderInvalid",
        ),
        (
            "offsets have 400 digits",
            entry("fc.bias", data_offsets=[10**399, 10**399 + 40]),
            "HeaderInvalid",
        ),
        (
            "offsets have 5,000 digits",
            text(lambda t: t.replace(b'"data_offsets": [', b'"data_offsets": [' + b"9" * 5000, 1)),
            "HeaderInvalid",
        ),
        ("offsets are beyond the file", moved("fc.bias", 10**6), "LayoutInvalid"),
        ("tensors overlap", moved("fc.bias", -4), "LayoutInvalid"),
        (
            "tensors leave a hole",
            lambda f: (moved("mask", 3)(f), data(lambda d: d + bytes(3))(f)),
            "LayoutInvalid",
        ),
        (
            "tensors share their bytes",
            over_another,
            "LayoutInvalid",
        ),
        ("tensor is missing", without_bias, "SchemaMismatch"),
        ("tensor is one too many", also("extra"), "SchemaMismatch"),
        (
            "tensor is one too many, of no bytes",
            header(
                lambda d: d.update(extra={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})
            ),
            "SchemaMismatch",
        ),
        ("tied tensor comes under both names", also(ALIAS), "SchemaMismatch"),
        ("tied tensor comes under its other name", named("fc.weight", ALIAS), "SchemaMismatch"),
        ("tensor's name has a space behind it", named("fc.bias", "fc.bias "), "SchemaMismatch"),
        ("tensor's name is in capitals", named("fc.bias", "FC.BIAS"), "SchemaMismatch"),
        ("tensor's name is empty", named("fc.bias", ""), "SchemaMismatch|HeaderInvalid"),
        ("tensor's name holds NUL", named("fc.bias", "fc.bias\0"), "SchemaMismatch|HeaderInvalid"),
        (
            "tensor's name holds a line break and an escape",
            named("fc.bias", "fc\n\x1b[2Jbias"),
            "SchemaMismatch|HeaderInvalid",
        ),
        ("tensor's name is a path", named("fc.bias", "../../../global/1/1"), "SchemaMismatch"),
        ("tensor's name is an absolute path", named("fc.bias", "/etc/passwd"), "SchemaMismatch"),
        ("tensor's name is half a letter", named("fc.bias", "fc.bias\ud800"), "HeaderInvalid"),
        ("tensor's name has 50,000 letters", named("fc.bias", "b" * 50_000), "SchemaMismatch"),
        ("tensor's name looks like another's", named("fc.bias", "fc.biаs"), "SchemaMismatch"),
        ("dtype is unheard of", entry("fc.bias", dtype="F8_E4M3"), "DtypeUnsupported"),
        ("dtype is a number", entry("fc.bias", dtype=32), "DtypeUnsupported|HeaderInvalid"),
        ("dtype is a list", entry("fc.bias", dtype=["F32"]), "DtypeUnsupported|HeaderInvalid"),
        ("dtype is in small letters", entry("fc.bias", dtype="f32"), "DtypeUnsupported"),
        ("dtype is an object of Python's", entry("fc.bias", dtype="O"), "DtypeUnsupported"),
        ("floats claim to be integers", entry("fc.bias", dtype="I32"), "SchemaMismatch"),
        (
            "integers claim to be floats",
            entry("bn.num_batches_tracked", dtype="F64"),
            "SchemaMismatch",
        ),
        (
            "floats claim to be twice as many halves",
            entry("fc.bias", dtype="F16", shape=[20]),
            "SchemaMismatch",
        ),
        ("floats claim to be as many halves", entry("fc.bias", dtype="BF16"), "LayoutInvalid"),
        (
            "floats claim to be half as many doubles",
            entry("fc.bias", dtype="F64", shape=[5]),
            "SchemaMismatch",
        ),
        ("truths claim to be bytes", entry("mask", dtype="U8"), "SchemaMismatch"),
        (
            "bytes of a float claim to be truths",
            entry("fc.bias", dtype="BOOL", shape=[40]),
            "SchemaMismatch",
        ),
    ]
)
