"""What there is: objects, their fields, and the record types."""

from __future__ import annotations

from typing import Any

from churnguard_pipelines.sandbox.salesforce import ids
from churnguard_pipelines.sandbox.salesforce.objects import SObject
from churnguard_pipelines.sandbox.salesforce.query import View


def summary(found: SObject, version: str) -> dict[str, Any]:
    base = f"/services/data/{version}/sobjects/{found.name}"
    changed = not found.name.endswith("History") and found.deletable
    return {
        "activateable": False,
        "createable": changed,
        "custom": found.custom,
        "customSetting": False,
        "deletable": changed,
        "deprecatedAndHidden": False,
        "feedEnabled": False,
        "hasSubtypes": False,
        "isSubtype": False,
        "keyPrefix": found.prefix,
        "label": found.label,
        "labelPlural": found.label + "s",
        "layoutable": True,
        "mergeable": found.name in ("Account", "Contact", "Lead", "Case"),
        "mruEnabled": True,
        "name": found.name,
        "queryable": True,
        "replicateable": found.stamped,
        "retrieveable": True,
        "searchable": True,
        "triggerable": True,
        "undeletable": changed,
        "updateable": changed,
        "urls": {"sobject": base, "describe": base + "/describe", "rowTemplate": base + "/{ID}"},
    }


def listing(view: View, version: str) -> dict[str, Any]:
    found = sorted(view.objects(), key=lambda each: each.name)
    return {"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": [summary(each, version) for each in found]}


def describe(view: View, found: SObject, version: str) -> dict[str, Any]:
    kinds = {"Opportunity": "deal", "Case": "ticket"}.get(found.name)
    record_types = [
        {
            "active": True,
            "available": True,
            "defaultRecordTypeMapping": False,
            "developerName": each.values["label"].replace(" ", "_"),
            "master": False,
            "name": each.values["label"],
            "recordTypeId": ids.make("012", each.id),
        }
        for each in view.crm.records("pipeline")
        if each.values["of"] == kinds
    ]
    return {
        **summary(found, version),
        "childRelationships": [],
        "fields": [field.describe() for field in view.fields(found).values()],
        "recordTypeInfos": record_types,
        "supportedScopes": [{"label": "All", "name": "everything"}],
    }
