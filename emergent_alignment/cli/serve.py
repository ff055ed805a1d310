"""Serve a model, or an endpoint, with the conscience in front of it, as an OpenAI-compatible API.

A client changes its base URL to http://HOST:PORT/v1, and nothing else. Every draft is reviewed
before anything is sent; what is flagged is corrected and reviewed again, or refused. Where the
reviewer fails, a refusal is sent (config.conscience.fail says otherwise). /health and /metrics
say how it goes; docs/zero_shot.md has the details. SIGTERM lets what runs end.

examples:
  emergent-alignment serve --endpoint http://127.0.0.1:8000/v1 --port 8080
  emergent-alignment serve --run runs/first
  emergent-alignment serve --config.conscience.calibration=runs/calibration.json
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from emergent_alignment.cli.answering import add_answerer_arguments, with_endpoint
from emergent_alignment.cli.configuration import HELP, read_config
from emergent_alignment.errors import UserError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare who answers, where, and where the journal is."""
    add_answerer_arguments(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8080, help="0: a free one")
    parser.add_argument("--name", help="what the model is called (default: as its source)")
    parser.add_argument("--journal", type=Path, default=Path("runs/serve/journal"), metavar="DIR")
    parser.epilog = HELP


def run(arguments: Namespace, rest: list[str]) -> None:
    """Serve until asked to stop."""
    config = read_config(rest)
    config = with_endpoint(arguments, config)
    from dataclasses import replace

    from emergent_alignment.applications.zero_shot.answerer import zero_shot
    from emergent_alignment.applications.zero_shot.conversations import ConversationJournal
    from emergent_alignment.applications.zero_shot.serving.settings import serve_settings

    try:
        from emergent_alignment.applications.zero_shot.serving.server import listen, serve
    except ModuleNotFoundError as error:
        raise UserError(
            f"serve needs {error.name}: pip install 'emergent-alignment[serve]'"
        ) from None
    talker = zero_shot(config, run=arguments.workdir, max_new_tokens=config.serve.max_new_tokens)
    talker = replace(talker, name=arguments.name or talker.name)
    bound = listen(arguments.host, arguments.port)
    journal = ConversationJournal(arguments.journal)
    host, port = bound.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"serving {talker.name} at http://{shown}:{port}/v1, journal {journal.path}", flush=True)
    serve(talker, bound, journal, serve_settings(config))
