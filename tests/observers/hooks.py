"""What the test leaves out of its requests: what would have it wait for an answer that goes on."""

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    for endless in ("follow", "wait"):
        if case.query:
            case.query.pop(endless, None)
