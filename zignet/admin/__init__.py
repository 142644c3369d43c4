"""The control process: whatever is slow or exposed, beside the packet process and without its rights.

node       its questions to the packet process
fresh      the same, kept for a moment, so that it is asked rarely
api        what each endpoint answers; documents: its shapes; events: what happens, as a stream; metrics: for Prometheus
endpoint   how an endpoint is described, once: for serving, checking and the OpenAPI document (openapi)
guard      who may ask: Host, Origin, token; pure
app        the API as HTTP; protocol: one connection, its limits and deadlines; token: what changes need
"""
