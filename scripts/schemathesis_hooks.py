"""What the document cannot know of this installation: the name of its account, and what its provider takes.

Values that are right by the document are made right for the installation too. Values that are wrong stay as they are.
"""

import json
import os

import schemathesis

ACCOUNT = "alibaba-sg"


def is_positive(case):
    return case.meta is None or case.meta.generation.mode.is_positive


def is_good_metadata(value):
    text = json.dumps(value, ensure_ascii=False)
    return len(text.encode("utf-8", "replace")) <= 4096 and "\\u0000" not in text and text.isprintable()


@schemathesis.hook
def before_call(context, case, kwargs):
    query = case.query or {}
    # Right either way, and nobody waits.
    if str(query.get("wait", "")).isdigit() and int(query["wait"]) <= 60:
        query["wait"] = 0
    if not is_positive(case):
        return
    if case.path_parameters and "account" in case.path_parameters:
        case.path_parameters["account"] = ACCOUNT
    if query.get("at_risk"):
        # It goes with these alone.
        for name in set(query) - {"at_risk", "account", "limit"}:
            del query[name]
    if case.operation.path == "/reconcile" and query.get("since"):
        query.pop("until", None)
        query["since"] = "2026-01-01T00:00:00Z"
    # Only those that an answer gave can be sent.
    query.pop("cursor", None)
    body = case.body
    if not isinstance(body, dict):
        return
    if case.operation.path == "/verifications":
        body["account"] = ACCOUNT
        body.pop("product", None)
        if body.get("return_url") is not None:
            body["return_url"] = "https://shop.example/after-check"
        # Its size is no matter of the schema.
        if body.get("metadata") is not None and not is_good_metadata(body["metadata"]):
            body["metadata"] = {"order": "A-17"}
        if body.get("initialize") is not None:
            # It makes the id and the token itself; what it takes is the provider's.
            for name in ("transaction_id", "callback_token"):
                body.pop(name, None)
            body["initialize"] = {"ProductCode": "FACE_LIVENESS", "MetaInfo": "{}", "MerchantUserId": "u"}
        elif body.get("transaction_id") is None:
            body["transaction_id"] = os.urandom(16).hex()
    elif case.operation.path == "/webhooks/replay":
        # Exactly one of the ways to choose.
        case.body = {"verification_id": "01a20052-106c-74b8-b008-29321547fb36", "dry_run": True}
    elif case.operation.path == "/rechecks" and isinstance(body.get("filter"), dict):
        if body["filter"].get("account") is not None:
            body["filter"]["account"] = ACCOUNT
