# What schemathesis cannot know from the document: tokens, and ids of things that are there.
# Read through SCHEMATHESIS_HOOKS; `facts` come as JSON in HOSTILE_FACTS.
import base64
import json
import os
import uuid

import schemathesis

facts = json.loads(os.environ["HOSTILE_FACTS"])


@schemathesis.auth().apply_to(path_regex="^/oauth/")
class ClientAuth:
    def get(self, case, context):
        text = f"{facts['client']['id']}:{facts['client']['secret']}"
        return base64.b64encode(text.encode()).decode()

    def set(self, case, data, context):
        case.headers = {**(case.headers or {}), "Authorization": f"Basic {data}"}


@schemathesis.auth().apply_to(path_regex="^/v1/(admin|users)/")
class AdminAuth:
    def get(self, case, context):
        return facts["adminToken"]

    def set(self, case, data, context):
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}


@schemathesis.auth().apply_to(path_regex="^/v1/(messages|conversations|stream)")
class MemberAuth:
    def get(self, case, context):
        return facts["memberToken"]

    def set(self, case, data, context):
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}


def is_uuid(value):
    try:
        return str(uuid.UUID(value)) == value.lower()
    except (AttributeError, TypeError, ValueError):
        return False


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """A conversation that is there, so that more than 404 is seen. An event stream that opens never ends: for it none is."""
    path = context.operation.path
    if path_parameters and not path.endswith("/events") and is_uuid(path_parameters.get("conversation_id")):
        path_parameters["conversation_id"] = facts["conversationId"]
        number = path_parameters.get("sequence_number")
        if isinstance(number, int) and number > 0:
            path_parameters["sequence_number"] = 1 + number % facts["lastSequenceNumber"]
    return path_parameters


@schemathesis.hook
def map_body(context, body):
    if isinstance(body, dict) and is_uuid(body.get("conversation_id")):
        body["conversation_id"] = facts["conversationId"]
    return body
