"""Mistakes in what the aggregation is asked for: strategies, shards, compression, scratch."""

from tests.api.mistakes import MOUNTED, Mistake, a_trainer, a_volume, participants

NO_PARAMETER = (
    ("FedAvg", "momentum", 0.5, "none"),
    ("FedProx", "learningRate", 0.1, "mu"),
    ("SCAFFOLD", "mu", 0.1, "learningRate"),
    ("FedNova", "learningRate", 0.1, "mu"),
    ("FedAvgM", "beta1", 0.5, "learningRate, momentum"),
    ("FedAdam", "momentum", 0.5, "learningRate, beta1, beta2, tau"),
    ("FedYogi", "mu", 0.1, "learningRate, beta1, beta2, tau"),
    ("FedAdagrad", "beta2", 0.5, "learningRate, beta1, tau"),
    ("DiLoCo", "tau", 0.1, "learningRate, momentum"),
    ("Median", "trim", 2, "none"),
    ("TrimmedMean", "byzantine", 1, "trim"),
    ("Krum", "selected", 3, "byzantine"),
    ("MultiKrum", "iterations", 3, "byzantine, selected"),
    ("Bulyan", "trim", 3, "byzantine"),
    ("GeometricMedian", "radius", 3, "iterations, epsilon"),
    ("CenteredClipping", "epsilon", 0.5, "radius, iterations"),
)
"""strategy, a parameter of another one, a value of it, what there is instead."""

TOO_FEW = (
    ({"name": "Krum"}, 4, 5),
    ({"name": "MultiKrum", "byzantine": 3}, 8, 9),
    ({"name": "Bulyan"}, 6, 7),
    ({"name": "Bulyan", "byzantine": 2}, 10, 11),
    ({"name": "TrimmedMean"}, 2, 3),
    ({"name": "TrimmedMean", "trim": 2}, 4, 5),
)
"""strategy, a quorum below what its rule needs, what it needs."""

OF_THE_AGGREGATION = (
    *(
        Mistake(
            f"{parameter} for {name}",
            {"strategy": {"name": name, parameter: value}},
            (f"spec.strategy.{parameter}: not a parameter of {name}; it has {has}",),
        )
        for name, parameter, value, has in NO_PARAMETER
    ),
    *(
        Mistake(
            f"{strategy['name']} of {given} where it needs {needed}",
            {
                "participants": [{"name": f"p{n}"} for n in range(needed)],
                "selection": {"minimum": needed},
                "strategy": strategy,
                "quorum": {"minimum": given},
            },
            (
                f"spec.quorum.minimum: {given} is too few for {strategy['name']} with the "
                f"parameters of spec.strategy; use {needed} or more",
            ),
        )
        for strategy, given, needed in TOO_FEW
    ),
    *(
        Mistake(
            f"{name} in exact sums",
            {
                "participants": [{"name": f"p{n}"} for n in range(7)],
                "strategy": {"name": name},
                "quorum": {"minimum": 7},
                "aggregation": {"precision": "Exact"},
            },
            (
                f"spec.aggregation.precision: Exact is a way to form sums, and {name} forms none; "
                "use Float32 or Float64",
            ),
        )
        for name in ("Median", "TrimmedMean", "Bulyan")
    ),
    *(
        Mistake(
            f"{name} in exact sums",
            {
                "strategy": {"name": name},
                "aggregation": {"precision": "Exact"},
                **participants({"scratch": {"claimName": "n"}}, {"scratch": {"claimName": "s"}}),
            },
            (
                "spec.aggregation.precision: Exact has room for weights that sum to 1, and those "
                f"of {name} may be more; use Float32 or Float64",
            ),
        )
        for name in ("SCAFFOLD", "FedNova")
    ),
    *(
        Mistake(
            f"a bound for the norms of {name}",
            {
                "strategy": {"name": name, "normBound": 1.5},
                **participants({"scratch": {"claimName": "n"}}, {"scratch": {"claimName": "s"}}),
            },
            (
                f"spec.strategy.normBound: {name} scales an update by what its receipt says after "
                "any bound, which then bounds nothing; leave it out, or use another strategy",
            ),
        )
        for name in ("SCAFFOLD", "FedNova")
    ),
    Mistake(
        "SCAFFOLD where one participant forgets",
        {"strategy": {"name": "SCAFFOLD"}, **participants({"scratch": {"claimName": "n"}}, {})},
        (
            "spec.strategy.name: SCAFFOLD keeps a control variate at each participant, and needs a "
            "place for it; give every participant a scratch, or use FedProx",
        ),
    ),
    Mistake(
        "SCAFFOLD with updates that lose something",
        {
            "strategy": {"name": "SCAFFOLD"},
            "compression": {"codec": "BFloat16"},
            **participants({"scratch": {"claimName": "n"}}, {"scratch": {"claimName": "s"}}),
        },
        (
            "spec.compression: SCAFFOLD makes of the same update a participant's control variate "
            "and the server's, which part ways when it loses something on the way; leave it out",
        ),
    ),
    Mistake(
        "FedNova with momentum of earlier rounds",
        {"strategy": {"name": "FedNova"}, "optimizerState": "Keep"},
        (
            "spec.optimizerState: Keep brings along momentum of earlier rounds, which FedNova's "
            "norm of this round's steps does not count; use Reset",
        ),
    ),
    Mistake(
        "FedNova with error feedback",
        {"strategy": {"name": "FedNova"}, "compression": {"codec": "Int8"}},
        (
            "spec.compression.codec: Int8 adds to an update what earlier ones left out (error "
            "feedback), which FedNova would normalise by this round's steps; use BFloat16, or "
            "leave it out",
        ),
    ),
    Mistake(
        "a strategy that is none of those there are",
        {"strategy": {"name": "fedadam"}},
        (
            'spec.strategy.name: "fedadam" is not FedAvg or FedProx or SCAFFOLD or FedNova or '
            "FedAvgM or FedAdam or FedYogi or FedAdagrad or DiLoCo or Median or TrimmedMean or "
            "Krum or MultiKrum or Bulyan or GeometricMedian or CenteredClipping; did you mean "
            "FedAdam?",
        ),
        theirs='spec.strategy.name: Unsupported value: "fedadam"',
    ),
    Mistake(
        "a momentum that never ends",
        {"strategy": {"name": "FedAvgM", "momentum": 1}},
        ("spec.strategy.momentum: 1 is too large; use less than 1, or leave it out",),
        theirs="spec.strategy.momentum in body should be less than 1",
    ),
    Mistake(
        "a server that does not step",
        {"strategy": {"name": "FedAdam", "learningRate": 0}},
        ("spec.strategy.learningRate: 0 is too small; use more than 0, or leave it out",),
        theirs="spec.strategy.learningRate in body should be greater than 0",
    ),
    *(
        Mistake(
            f"{name} with {parameter} next to nothing",
            {"strategy": {"name": name, parameter: 1e-40}},
            (f"spec.strategy.{parameter}: 1e-40 is too small; use {least} or more",),
            theirs=f"is too small; use {least} or more",
        )
        for name, parameter, least in (
            ("FedYogi", "tau", 1e-12),
            ("GeometricMedian", "epsilon", 1e-30),
            ("CenteredClipping", "radius", 1e-30),
        )
    ),
    Mistake(
        "a whole number that is too small for a degree of adaptivity",
        {"strategy": {"name": "FedAdam", "tau": 0}},
        ("spec.strategy.tau: 0 is too small; use more than 0, or leave it out",),
        theirs="spec.strategy.tau in body should be greater than 0",
    ),
    Mistake(
        "no bound for the norms",
        {"strategy": {"normBound": 0}},
        ("spec.strategy.normBound: 0 is too small; use more than 0, or leave it out",),
        theirs="spec.strategy.normBound in body should be greater than 0",
    ),
    Mistake(
        "no shards",
        {"aggregation": {"shards": 0}},
        (
            "spec.aggregation.shards: 0 is not a number of shards; "
            "use 1 or more, or leave it out for 1",
        ),
        theirs="spec.aggregation.shards in body should be greater than or equal to 1",
    ),
    Mistake(
        "too many shards",
        {"aggregation": {"shards": 65}},
        (
            "spec.aggregation.shards: 65 is not a number of shards; "
            "use 64 or less, or leave it out for 1",
        ),
        theirs="spec.aggregation.shards in body should be less than or equal to 64",
    ),
    Mistake(
        "a compression without a codec",
        {"compression": {"block": 256}},
        ("spec.compression.codec: is missing; give BFloat16 or Int8 or TopK",),
        theirs="spec.compression.codec: Required value",
    ),
    Mistake(
        "a block for BFloat16",
        {"compression": {"codec": "BFloat16", "block": 256}},
        ("spec.compression.block: not a parameter of BFloat16; it has none",),
    ),
    Mistake(
        "a fraction for Int8",
        {"compression": {"codec": "Int8", "fraction": 0.1}},
        ("spec.compression.fraction: not a parameter of Int8; only TopK has it",),
    ),
    *(
        Mistake(
            f"a block of {block} for Int8",
            {"compression": {"codec": "Int8", "block": block}},
            (
                f"spec.compression.block: {block} is no block of Int8; "
                "use a power of two from 64 to 4096",
            ),
        )
        for block in (100, 8192)
    ),
    Mistake(
        "a block that is too small for anything",
        {"compression": {"codec": "Int8", "block": 32}},
        ("spec.compression.block: 32 is too small; use 64 or more, or leave it out",),
        theirs="spec.compression.block in body should be greater than or equal to 64",
    ),
    Mistake(
        "a small block for TopK",
        {
            "compression": {"codec": "TopK", "block": 512},
            **participants({"scratch": {"claimName": "n"}}, {"scratch": {"claimName": "s"}}),
        },
        ("spec.compression.block: 512 is no block of TopK; use 1024 to 65536",),
    ),
    Mistake(
        "TopK where one participant forgets",
        {"compression": {"codec": "TopK"}, **participants({"scratch": {"claimName": "n"}}, {})},
        (
            "spec.compression.codec: TopK keeps for later rounds what an update leaves out (error "
            "feedback), and needs a place for it; give every participant a scratch with a "
            "claimName, or use Int8",
        ),
    ),
    Mistake(
        "the exchange as a participant's scratch",
        participants({}, {"scratch": {"claimName": "digits-exchange"}}),
        (f"spec.participants[1].scratch.claimName: {MOUNTED('digits-exchange')}",),
        theirs=f"spec.participants: Invalid value: {MOUNTED('digits-exchange')}",
    ),
    Mistake(
        "one scratch for two",
        participants({"scratch": {"claimName": "ours"}}, {"scratch": {"claimName": "ours"}}),
        (
            "spec.participants[1].scratch.claimName: ours is the scratch of participants[0] "
            "already; give each one of its own",
        ),
        theirs=None,
    ),
    Mistake(
        "a folder of somebody else's scratch",
        participants({"scratch": {"claimName": "ours", "subPath": "north"}}, {}),
        (
            "spec.participants[0].scratch.subPath: no such field; "
            "leave it out, or use one of claimName",
        ),
        theirs='unknown field "spec.participants[0].scratch.subPath"',
    ),
    Mistake(
        "a volume over the scratch",
        a_trainer(volumes=[a_volume(mountPath="/scratch")]),
        (
            "spec.trainer.volumes[0].mountPath: /scratch hides /fedtrain, /tmp or /scratch, "
            "which fedtrain uses; use another path",
        ),
    ),
)
