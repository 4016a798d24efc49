"""The `gpufleet` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gpufleet.cli.errors import CliError, Exit
from gpufleet.cli.output import Format, note, out
from gpufleet.cli.what import What

app = typer.Typer(
    name="gpufleet",
    help="Place AI workloads on many Kubernetes clusters. `gpufleet demo` shows what it does.",
    epilog="Exit codes: 0 done (any verdict), 1 an expectation or a wait failed, 2 bad usage or document, "
    "3 Kafka or a cluster cannot be reached. Kafka is found by GPUFLEET_KAFKA_BOOTSTRAP or --kafka.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
topics_app = typer.Typer(help="Topics of the log, as proto/topics.yaml has them.", no_args_is_help=True)
dlq_app = typer.Typer(help="Records that could not be read.", no_args_is_help=True)
app.add_typer(topics_app, name="topics")
app.add_typer(dlq_app, name="dlq")

Files = Annotated[
    list[str], typer.Option("--filename", "-f", help="File or folder with documents; - is standard input. Repeatable.")
]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace of documents that name none.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to print.")]
Kafka = Annotated[
    str, typer.Option("--kafka", metavar="HOST:PORT", envvar="GPUFLEET_KAFKA_BOOTSTRAP", help="Where Kafka is.")
]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait at most.")]
WorkloadName = Annotated[str, typer.Argument(metavar="NAMESPACE/KIND/NAME")]
At = Annotated[str, typer.Option("--at", metavar="TIME", help="The last decision up to a time, in RFC 3339.")]
Decision = Annotated[str, typer.Option("--decision", metavar="EPOCH.VERSION", help="The decision of this version.")]
History = Annotated[
    str,
    typer.Option(
        "--from-file",
        metavar="FILE",
        help="Read the history from a file, one record's value a line; - is standard input.",
    ),
]
DEFAULT_KAFKA = "127.0.0.1:9092"


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        from gpufleet import __version__

        out(__version__)
        raise typer.Exit


# -- on one machine ----------------------------------------------------------------------------------------------------


@app.command()
def up(
    fleet: Annotated[
        list[Path] | None,
        typer.Option(
            "--fleet", help="Cluster documents, and WorkloadKinds; clusters without a --kubeconfig are simulated."
        ),
    ] = None,
    kafka: Annotated[str, typer.Option("--kafka", metavar="HOST:PORT", help="Use this Kafka.")] = "",
    kubeconfig: Annotated[
        list[str] | None,
        typer.Option("--kubeconfig", metavar="NAME=PATH", help="Use a real cluster; a document describes it."),
    ] = None,
    port: Annotated[int, typer.Option("--port", help="Port of the embedded broker; 0 takes a free one.")] = 9092,
    single_process: Annotated[
        bool, typer.Option("--single-process", help="Run services and simulated clusters in this process.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where logs and kubeconfigs go; default: removed at the end.")
    ] = None,
) -> None:
    """Start broker, services and simulated clusters on this machine; Ctrl-C stops everything."""
    from gpufleet.cli.up import up as run

    _quiet()
    run(fleet=fleet, kafka=kafka, kubeconfigs=kubeconfig, port=port, single_process=single_process, folder=folder)


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the system running at the end, until Ctrl-C.")] = False,
) -> None:
    """Tell the story of the README with real effect; exit code 1 if a step is not as it should be."""
    from gpufleet.cli.demo import demo as run

    _quiet()
    run(keep=keep)


# -- what would happen -------------------------------------------------------------------------------------------------


@app.command()
def plan(
    filename: Files,
    output: Output = Format.TABLE,
    namespace: Namespace = "default",
) -> None:
    """Show where workloads would go: documents of a fleet, policies and workloads in, placements out. Needs nothing
    running; `gpufleet get fleet -o yaml | gpufleet plan -f - -f job.yaml` plans on the live fleet."""
    from gpufleet.cli.plan import plan as run

    run(filename, output, namespace)


@app.command()
def simulate(
    scenario: Annotated[str, typer.Argument(help="File with a Scenario document.")],
    output: Output = Format.TABLE,
    history: Annotated[
        str, typer.Option("--history", metavar="FILE", help="Write the record of every decision, for `replay`.")
    ] = "",
) -> None:
    """Run a scenario in virtual time on simulated clusters; exit code 1 if an `expect` fails."""
    from gpufleet.cli.plan import simulate as run

    run(scenario, output, history)


# -- submitting --------------------------------------------------------------------------------------------------------


@app.command()
def apply(
    filename: Files,
    namespace: Namespace = "default",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the pods are ready.")] = False,
    timeout: Timeout = 60.0,
    kafka: Kafka = DEFAULT_KAFKA,
) -> None:
    """Submit clusters, policies and workloads, and show where the workloads go."""
    from gpufleet.cli import submit

    submit.run(lambda: submit.apply(_kafka(kafka), filename, namespace, wait=wait, timeout=timeout))


@app.command()
def delete(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAMESPACE/KIND/NAME...")] = None,
    filename: Files = [],  # noqa: B006  typer copies it
    namespace: Namespace = "default",
    timeout: Timeout = 60.0,
    kafka: Kafka = DEFAULT_KAFKA,
) -> None:
    """Delete workloads (by name, or what documents name), and wait until their copies are gone."""
    from gpufleet.cli import submit

    if not names and not filename:
        raise CliError("name workloads, or give documents with -f")
    submit.run(lambda: submit.delete(_kafka(kafka), names or [], filename, namespace, timeout))


@app.command()
def scale(
    name: WorkloadName,
    replicas: Annotated[int | None, typer.Option("--replicas", min=0, help="The total over all clusters.")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Let the manifest say again.")] = False,
    kafka: Kafka = DEFAULT_KAFKA,
) -> None:
    """Override the total replicas of a workload."""
    from gpufleet.cli import submit

    if (replicas is None) is not reset:
        raise CliError("give --replicas or --reset")
    submit.run(lambda: submit.scale(_kafka(kafka), name, replicas))


@app.command()
def freeze(
    reason: Annotated[str, typer.Option("--reason", help="Shown to everybody who wonders.")] = "",
    kafka: Kafka = DEFAULT_KAFKA,
) -> None:
    """Go on deciding, but write nothing to clusters until `gpufleet unfreeze`."""
    from gpufleet.cli import submit

    submit.run(lambda: submit.freeze(_kafka(kafka), reason))
    note("frozen: decisions are made and shown, clusters stay as they are")


@app.command()
def unfreeze(kafka: Kafka = DEFAULT_KAFKA) -> None:
    """Write decisions to clusters again."""
    from gpufleet.cli import submit

    submit.run(lambda: submit.freeze(_kafka(kafka), None))
    note("no longer frozen: clusters are brought in line with the decisions")


# -- looking -----------------------------------------------------------------------------------------------------------


@app.command("get")
def get_(
    what: What,
    names: Annotated[list[str] | None, typer.Argument()] = None,
    output: Output = Format.TABLE,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Print again after every change.")] = False,
    kafka: Kafka = DEFAULT_KAFKA,
) -> None:
    """List workloads, placements, clusters or policies; `fleet` prints everything that `plan` needs."""
    from gpufleet.cli import show, submit

    submit.run(lambda: show.get(_kafka(kafka), what, names or [], output, watch=watch))


@app.command()
def describe(
    name: Annotated[str, typer.Argument(metavar="NAMESPACE/KIND/NAME or CLUSTER")], kafka: Kafka = DEFAULT_KAFKA
) -> None:
    """Show everything about a workload or a cluster."""
    from gpufleet.cli import show, submit

    submit.run(lambda: show.describe(_kafka(kafka), name))


@app.command()
def explain(
    name: WorkloadName,
    filename: Files = [],  # noqa: B006  typer copies it
    namespace: Namespace = "default",
    output: Output = Format.TABLE,
    at: At = "",
    decision: Decision = "",
    history: History = "",
    kafka: Kafka = DEFAULT_KAFKA,
) -> None:
    """Say why a workload is where it is, and what would change that; with -f, of documents as `plan` decides them.
    With --at, --decision or --from-file, why it was where it was: every cluster, computed again from the history."""
    from gpufleet.cli import show, submit

    if at or decision or history:
        if filename:
            raise CliError("give documents with -f, or a past decision, not both")
        from gpufleet.cli import replay as past

        past.explain(past.chosen(_history(kafka, history, name), at, decision), name, output)
        return
    if filename:
        show.explain_documents(filename, name, output, namespace)
        return
    submit.run(lambda: show.explain(_kafka(kafka), name, output))


@app.command()
def replay(
    name: Annotated[str, typer.Argument(metavar="NAMESPACE/KIND/NAME", help="Of this workload only.")] = "",
    output: Output = Format.TABLE,
    at: At = "",
    decision: Decision = "",
    history: History = "",
    kafka: Kafka = DEFAULT_KAFKA,
) -> None:
    """Make past decisions again from the history, and say of each whether it is the same; exit code 1 if any is not."""
    from gpufleet.cli import replay as past

    past.show(past.chosen(_history(kafka, history, name), at, decision), output)


# -- looking after the log ---------------------------------------------------------------------------------------------


@topics_app.command("apply")
def topics_apply(kafka: Kafka = DEFAULT_KAFKA) -> None:
    """Create missing topics and alter configs that differ."""
    from gpufleet.cli import admin, submit

    submit.run(lambda: admin.topics(_kafka(kafka), apply=True))


@topics_app.command("diff")
def topics_diff(kafka: Kafka = DEFAULT_KAFKA) -> None:
    """Show what `topics apply` would do; exit code 1 if anything."""
    from gpufleet.cli import admin, submit

    submit.run(lambda: admin.topics(_kafka(kafka), apply=False))


Everything = Annotated[bool, typer.Option("--all", help="Those that were dealt with too.")]
Origin = Annotated[str, typer.Argument(metavar="TOPIC/PARTITION/OFFSET")]


@dlq_app.command("list")
def dlq_list(output: Output = Format.TABLE, everything: Everything = False, kafka: Kafka = DEFAULT_KAFKA) -> None:
    """List records that could not be read."""
    from gpufleet.cli import admin, submit

    submit.run(lambda: admin.dlq_list(_kafka(kafka), output, everything=everything))


@dlq_app.command("show")
def dlq_show(origin: Origin, kafka: Kafka = DEFAULT_KAFKA) -> None:
    """Show one of them with its value."""
    from gpufleet.cli import admin, submit

    submit.run(lambda: admin.dlq_show(_kafka(kafka), origin))


@dlq_app.command("replay")
def dlq_replay(
    origins: Annotated[list[str] | None, typer.Argument(metavar="TOPIC/PARTITION/OFFSET...")] = None,
    value: Annotated[Path | None, typer.Option("--value", help="File with the repaired value.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="The repaired key.")] = None,
    headers: Annotated[
        list[str] | None, typer.Option("--header", metavar="NAME=TEXT", help="A repaired header; NAME= leaves it out.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All open ones, as they are.")] = False,
    kafka: Kafka = DEFAULT_KAFKA,
) -> None:
    """Put records back on their topics, repaired or as they are."""
    from gpufleet.cli import admin, submit

    if bool(origins) is everything:
        raise CliError("name origins, or give --all")
    repaired = None
    if value is not None:
        try:
            repaired = value.read_bytes()
        except OSError as error:
            raise CliError(f"{value}: {error.strerror or error}") from error
    submit.run(
        lambda: admin.dlq_replay(
            _kafka(kafka), origins or [], value=repaired, key=key, headers=headers or [], everything=everything
        )
    )


@dlq_app.command("drop")
def dlq_drop(
    origins: Annotated[list[str], typer.Argument(metavar="TOPIC/PARTITION/OFFSET...")], kafka: Kafka = DEFAULT_KAFKA
) -> None:
    """Note that nothing more will be done about records."""
    from gpufleet.cli import admin, submit

    submit.run(lambda: admin.dlq_drop(_kafka(kafka), origins))


@app.command()
def doctor(
    services: Annotated[
        list[str] | None, typer.Option("--service", metavar="HOST:PORT", help="Also ask this service's /readyz.")
    ] = None,
    kafka: Kafka = DEFAULT_KAFKA,
) -> None:
    """Look at everything that has to work, and say what to do about what does not."""
    from gpufleet.cli import admin, submit

    submit.run(lambda: admin.doctor(_kafka(kafka), services or []))


def _history(bootstrap: str, path: str, workload: str) -> Any:
    """Returns the decisions of a file, or of the log, on one workload or (empty) on all."""
    from gpufleet.cli import replay as past

    return past.read_file(path, workload) if path else past.read_log(_kafka(bootstrap), workload)


def _kafka(bootstrap: str) -> Any:
    """Returns the settings from the environment for a broker."""
    from pydantic import ValidationError

    from gpufleet.bus.settings import KafkaSettings

    _quiet()
    try:
        settings = KafkaSettings(bootstrap=bootstrap)
    except ValidationError as error:
        problems = "; ".join(
            ": ".join(filter(None, [".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")]))
            for e in error.errors()
        )
        raise CliError(f"Kafka settings: {problems}") from error
    if "connect_timeout" not in settings.model_fields_set:
        settings = settings.model_copy(update={"connect_timeout": 5.0})
    if "fetch_wait_ms" not in settings.model_fields_set:
        settings = settings.model_copy(update={"fetch_wait_ms": 50})
    return settings


def _quiet() -> None:
    """Logs are for services; a command speaks for itself."""
    import logging

    from gpufleet.telemetry import logs

    logs.configure(level="CRITICAL", format_="console")
    # Loggers with a level of their own, such as that of the Kafka client, do not ask the root's.
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.CRITICAL)


def run() -> None:
    """The console script: errors as one message, exit codes as documented."""
    try:
        code = app(standalone_mode=False)  # that of Ctrl-C, among others, is returned and not raised
        if isinstance(code, int):
            sys.exit(code)
    except CliError as error:
        note(f"error: {error}")
        sys.exit(int(error.code))
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        usage = getattr(error, "format_message", None)  # click's own errors, whichever click typer brings
        if usage is None:
            raise
        # No arguments at all are no error to be told of: what click says then is the help.
        text = usage().replace("Value error, ", "")
        note(text if type(error).__name__ == "NoArgsIsHelpError" else f"error: {text}")
        sys.exit(int(Exit.USAGE))


if __name__ == "__main__":
    run()
