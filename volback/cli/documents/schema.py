"""Schema: all documents as one JSON schema, made of their types."""

from typing import Any

import msgspec

from volback.cli.documents import backups, common, keeping, machine, moves

RESULTS: dict[str, tuple[Any, ...]] = {
    "init": (machine.Initialised,),
    "backup": (backups.BackedUp, backups.BackupPlan),
    "restore": (moves.Restored, moves.RestorePlan, moves.RestoredSet),
    "clone": (moves.Moved, moves.ClonedProject),
    "migrate": (moves.Migrated, moves.MigratedSet),
    "list": (backups.BackupList,),
    "show": (backups.Shown,),
    "ls": (backups.Entries,),
    "diff": (backups.Differences,),
    "find": (backups.Versions,),
    "history": (backups.PathHistory,),
    "du": (backups.Usage,),
    "verify": (backups.Verified,),
    "prove": (common.Compared,),
    "check": (backups.Checked,),
    "repair": (backups.Repaired,),
    **dict.fromkeys(("hold", "release", "note", "tag add", "tag remove"), (backups.NotedBackups,)),
    "export": (moves.Exported,),
    "import": (moves.Imported,),
    "copy": (moves.Copied,),
    "volumes": (machine.Volumes,),
    "remove": (keeping.Removed,),
    "version": (machine.VersionOf,),
    "prune": (keeping.Pruned,),
    "repack": (keeping.Repacked,),
    "adopt": (machine.Adopted,),
    "doctor": (machine.Diagnosis,),
    "run": (keeping.JobsDone,),
    "jobs": (keeping.JobList,),
    "status": (keeping.Standing,),
    "recover": (machine.Recovered,),
    "scheduler": (keeping.SchedulerEnded,),
    "notify": (machine.Notified,),
    "completion": (machine.CompletionScript,),
    **dict.fromkeys(("key add", "key remove", "key passwd"), (machine.KeyOf,)),
    "key list": (machine.KeyList,),
    "key export": (machine.KeySheet,),
    "key rotate": (machine.Rotated,),
    "key host": (machine.HostKey,),
    "key trust": (machine.Trusted,),
    "key pin": (machine.Pinned,),
    "config check": (machine.ConfigChecked,),
    "config show": (machine.ConfigShown,),
    "config init": (machine.ConfigDraft,),
    "schedule install": (keeping.ScheduleInstalled,),
    "schedule remove": (keeping.ScheduleRemoved,),
    "schedule show": (keeping.Schedule,),
    **dict.fromkeys(("plugin install", "plugin remove"), (machine.PluginFile,)),
}
"""The types of the result of each command; several where its options decide."""
WITHOUT = {"cat"}
"""Commands that refuse --json."""


def schema() -> dict[str, Any]:
    """The schema of every document; that of a line of the log is in its `$defs` too."""
    types = [common.Document, common.LogLine, *dict.fromkeys(kind for kinds in RESULTS.values() for kind in kinds)]
    _, parts = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    document = parts.pop("Document")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **document,
        "title": "What volback writes with --json, schema 1",
        "allOf": [_of(command, kinds) for command, kinds in RESULTS.items()],
        "$defs": dict(sorted(parts.items())),
    }


def _of(command: str, kinds: tuple[Any, ...]) -> dict[str, Any]:
    results = [{"$ref": f"#/$defs/{kind.__name__}"} for kind in kinds]
    result = results[0] if len(results) == 1 else {"anyOf": results}
    return {"if": {"properties": {"command": {"const": command}}}, "then": {"properties": {"result": result}}}
