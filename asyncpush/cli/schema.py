"""``asyncpush schema``: the JSON Schemas of the documents that asyncpush reads and writes."""

from __future__ import annotations

import click

from asyncpush.cli.output import print_json
from asyncpush.job.document import job_schema
from asyncpush.plan.lock import lock_schema
from asyncpush.replication.document import replication_schema
from asyncpush.report.document import report_schema

_SCHEMAS = {
    "job": job_schema,
    "lock": lock_schema,
    "report": report_schema,
    "replication": replication_schema,
}


@click.command()
@click.argument("document", type=click.Choice(list(_SCHEMAS)), default="job")
def schema(document: str) -> None:
    """Print the JSON Schema of a document: job files by default."""
    print_json(_SCHEMAS[document]())
