"""The command line: `gridsight VERB ...`, built from the verbs' settings."""

import os
import sys
from collections.abc import Sequence

# Read when torch is first imported. Threads that sleep at once between two operations make a step of a small network
# 1.5 times slower, threads that spin for ever make two processes on the same cores many times slower: spin a little.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from gridsight.core.console import Console, dumps
from gridsight.core.errors import GridsightError, UsageError
from gridsight.core.ranks import says, world_size
from gridsight.core.settings import parse
from gridsight.verbs import VERBS

_EXAMPLES = """
examples:
  gridsight train digits                      train on the embedded digits; no download
  gridsight train photos/ --out runs/photos   one folder a class, or train/ and test/ on top
  gridsight predict runs/photos new/*.jpg     labels with calibrated probabilities
  gridsight report runs/photos                one HTML page with everything
  gridsight check photos/                     corrupt, duplicate and leaking files before you train

gridsight VERB --help tells more, with examples.
"""


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; 0 done, 1 some items or the run failed, 2 wrong use (one line, no traceback)."""
    words = list(sys.argv[1:] if words is None else words)
    as_json = "--json" in words
    try:
        return _run(words, Console(json=as_json))
    except GridsightError as error:
        return _fail(str(error), error.exit_code, as_json)
    except KeyboardInterrupt:
        return _fail("stopped by Ctrl-C", 1, as_json)
    except MemoryError:
        return _fail("out of memory; a smaller --batch or --size needs less", 1, as_json)
    except RuntimeError as error:
        # PyTorch's word for memory that it did not get
        if "alloc" not in str(error) and "out of memory" not in str(error):
            raise
        return _fail("out of memory; a smaller --batch or --size needs less", 1, as_json)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(f"{error.filename or 'file system'}: {error.strerror or error}", 1, as_json)


def _run(words: list[str], console: Console) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if words[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"gridsight {version('gridsight')}")
        return 0
    verb, *rest = words
    if verb.startswith("-"):
        raise UsageError(f"the verb comes first: gridsight VERB {verb} ...; see gridsight --help")
    VERBS.require(verb)
    entry = VERBS.get(verb)
    if world_size() > 1 and not entry.tags.get("processes"):
        raise UsageError(f"gridsight {verb} works in one process; torchrun is for train and resume")
    try:
        settings = parse(entry.tags["settings"], verb, rest)
    except SystemExit:  # argparse leaves so after --help
        return 0
    result = entry.item(settings, console)
    return int(getattr(result, "exit_code", 0))


def _help() -> str:
    lines = ["Train, explain and ship convolutional networks for signals, images and volumes.", "", "verbs:"]
    for entry in VERBS.entries():
        summary = (entry.tags["settings"].__doc__ or "").splitlines()[0].rstrip(".")
        lines.append(f"  {entry.name:<10} {summary}")
    return "\n".join(lines) + "\n" + _EXAMPLES.rstrip("\n")


def _fail(message: str, code: int, as_json: bool) -> int:
    if not says(message):
        return code
    if as_json:
        print(dumps({"error": message}))
    print(f"gridsight: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
