"""A JSON API: values in, values out, checked by their types; what is no request closes with 1007."""

import attrs

from trioktor import Application, CattrsConverter, WebSockets, run  # pip install 'trioktor[cattrs]'


@attrs.frozen
class Request:
    id: int
    operation: str
    numbers: list[float]


@attrs.frozen
class Answer:
    id: int
    result: float | None = None
    error: str | None = None


OPERATIONS = {"sum": sum, "max": max, "min": min}

app = Application()
app.install(WebSockets(content_converter=CattrsConverter()))


def answer(request):
    operation = OPERATIONS.get(request.operation)
    if operation is None or not request.numbers:
        return Answer(request.id, error=f"there is no {request.operation} of {len(request.numbers)} numbers")
    return Answer(request.id, result=operation(request.numbers))


@app.websocket("/calculator")
async def calculator(session):
    while True:
        request = await session.receive_deserialized(Request)
        await session.send_serialized(answer(request))


if __name__ == "__main__":
    run(app, 8080)
