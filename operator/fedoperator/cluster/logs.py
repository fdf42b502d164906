"""One line per message, as key=value: easy to read, easy to search, nothing to configure."""

import json
import logging
import sys
from datetime import UTC, datetime

_KNOWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class KeyValue(logging.Formatter):
    """time=... level=... logger=... msg="..." and whatever the call gave as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, object] = {
            "time": moment,
            "level": record.levelname,
            "logger": record.name,
            "msg": record.getMessage(),
        }
        fields |= {name: v for name, v in vars(record).items() if name not in _KNOWN}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return " ".join(f"{name}={_quoted(value)}" for name, value in fields.items())


def _quoted(value: object) -> str:
    """As it is, or as a JSON string if it would not be one word."""
    text = str(value)
    plain = text and not any(c in ' "=\\' or not c.isprintable() for c in text)
    return text if plain else json.dumps(text, ensure_ascii=False)


def configure(level: str) -> None:
    """Everything to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValue())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
