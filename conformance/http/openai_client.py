"""The stock OpenAI client against a running service: what it can do here, and how it understands refusals.

Reads GAINSAY_URL and GAINSAY_OPERATOR_TOKEN; the service must serve all-MiniLM-L6-v2, and a language model
under the name `tiny`.
"""

import asyncio
import base64
import os
import struct

import httpx2 as httpx
import openai
import requests

URL = os.environ["GAINSAY_URL"]
OPERATOR_TOKEN = os.environ["GAINSAY_OPERATOR_TOKEN"]
MODEL = "all-MiniLM-L6-v2"
CHAT_MODEL = "tiny"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who computed this?"}]
TEXTS = ["Intelligence becomes infrastructure.", "The cat sleeps.", "Les mots ont un poids : naïveté, œuvre, ½."]
CLS, SEP = 101, 102


def funded():
    """The key of a submitter of its own, with money: others' requests do not use up its allowance."""
    made = requests.post(f"{URL}/v1/submitters", json={"name": "openai"}, timeout=60).json()
    operator = {"authorization": f"Bearer {OPERATOR_TOKEN}"}
    deposit = {"to": made["id"], "amount": 10**8}
    requests.post(f"{URL}/v1/deposits", json=deposit, headers=operator, timeout=60).raise_for_status()
    return made["api_key"]


API_KEY = funded()


def client(key=API_KEY, **options):
    return openai.OpenAI(base_url=f"{URL}/v1", api_key=key, timeout=60, **options)


def embed(asker, **request):
    return asker.embeddings.create(**{"model": MODEL, **request})


def refused(kind, code, param, make):
    """Runs `make`, which must be refused with this exception, code and parameter."""
    try:
        make()
    except kind as error:
        assert type(error) is kind, f"{type(error).__name__} in place of {kind.__name__}"
        assert error.code == code, f"{error.code} in place of {code}: {error}"
        assert error.param == param, f"{error.param} in place of {param}: {error}"
        assert error.request_id, "the client finds no request id"
        return error
    raise AssertionError(f"nothing was refused where {code} was expected")


def models_are_listed():
    listed = [model for model in client().models.list() if model.name == MODEL]
    assert len(listed) == 1 and listed[0].object == "model" and len(listed[0].id) == 64, listed


def every_form_of_input_is_embedded():
    asker = client()
    one = embed(asker, input=TEXTS[0])
    assert one.model == MODEL and one.object == "list" and len(one.data) == 1
    assert len(one.data[0].embedding) == 384
    assert abs(sum(value * value for value in one.data[0].embedding) - 1) < 1e-5, "a vector is not normalized"
    many = embed(asker, input=TEXTS)
    assert [item.index for item in many.data] == [0, 1, 2]
    assert many.data[0].embedding == one.data[0].embedding, "a vector depends on its company"
    assert many.usage.prompt_tokens == many.usage.total_tokens > one.usage.prompt_tokens > 0
    # Token ids as the tokenizer gives them, special tokens included.
    ids = [CLS, 1996, 4937, 25126, 1012, SEP]
    assert embed(asker, input=ids).data[0].embedding == many.data[1].embedding, "token ids give another vector"
    assert embed(asker, input=ids).usage.prompt_tokens == len(ids)
    assert len(embed(asker, input=[ids, ids[:2] + [SEP]]).data) == 2
    assert len(embed(asker, input=["word"] * 300).data) == 300, "a request of several jobs"
    # By id in place of the name, with the width that the model has, and what other clients add.
    by_id = next(model.id for model in asker.models.list() if model.name == MODEL)
    assert embed(asker, input=TEXTS[0], model=by_id, dimensions=384, user="u").data[0].embedding == one.data[0].embedding


def both_encodings_hold_the_same_numbers():
    floats = embed(client(), input=TEXTS, encoding_format="float")
    # The client decodes base64 only where it asked for it by itself.
    raw = embed(client(), input=TEXTS, encoding_format="base64")
    for plain, coded in zip(floats.data, raw.data):
        data = base64.b64decode(coded.embedding)
        values = struct.unpack(f"<{len(data) // 4}f", data)
        assert [struct.pack("<f", value) for value in plain.embedding] == [struct.pack("<f", v) for v in values]


def answers_say_where_they_come_from():
    answer = client().embeddings.with_raw_response.create(model=MODEL, input=TEXTS[0])
    finality, job = answer.headers["gainsay-finality"], answer.headers["gainsay-job"]
    assert finality in ("pending", "final"), finality
    body = answer.parse().model_extra["gainsay"]
    assert body["job"] == job and len(body["claim"]) == 64 and body["price"] > 0
    receipt = requests.get(f"{URL}/v1/jobs/{job}/receipt", headers={"authorization": f"Bearer {API_KEY}"}, timeout=60)
    assert receipt.json()["claim"] == body["claim"]


def refusals_are_typed():
    asker = client()
    bad, missing = openai.BadRequestError, openai.NotFoundError
    refused(missing, "unknown_model", "model", lambda: embed(asker, model="gpt-none", input="x"))
    refused(missing, "route_not_found", None, lambda: asker.files.list())
    refused(bad, "empty_input", "input", lambda: embed(asker, input=""))
    refused(bad, "empty_input", "input", lambda: embed(asker, input=[]))
    refused(bad, "invalid_request", "input", lambda: embed(asker, input=[1, "two"]))
    refused(bad, "invalid_input", "input", lambda: embed(asker, input=[CLS, 10**9, SEP]))
    refused(bad, "too_many_inputs", "input", lambda: embed(asker, input=["x"] * 2049))
    refused(bad, "unsupported_parameter", "dimensions", lambda: embed(asker, input="x", dimensions=3))
    refused(bad, "price_too_low", "max_price", lambda: embed(asker, input="x", extra_body={"max_price": 1}))
    long = refused(bad, "input_too_long", "input", lambda: embed(asker, input=["x", "word " * 600]))
    assert "Input 1" in str(long) and "512" in str(long), long
    stranger = openai.AuthenticationError
    refused(stranger, "invalid_api_key", None, lambda: embed(client("wrong"), input="x"))


def who_has_no_money_is_told_so():
    key = requests.post(f"{URL}/v1/submitters", json={"name": "poor"}, timeout=60).json()["api_key"]
    error = refused(openai.APIStatusError, "insufficient_funds", None, lambda: embed(client(key), input="x"))
    assert error.status_code == 402 and error.type == "insufficient_quota_error", error


class Counting(httpx.HTTPTransport):
    """Counts what the client sends."""

    def __init__(self):
        super().__init__()
        self.sent = 0

    def handle_request(self, request):
        self.sent += 1
        return super().handle_request(request)


def only_what_may_be_repeated_is_repeated():
    transport = Counting()
    asker = client(http_client=httpx.Client(transport=transport), max_retries=2)
    refused(openai.BadRequestError, "empty_input", "input", lambda: embed(asker, input=""))
    assert transport.sent == 1, "a refused request was sent again"


def talk(asker, **request):
    """A conversation's next message: by a fixed seed, so that it is the same every time."""
    usual = {"model": CHAT_MODEL, "messages": MESSAGES, "max_tokens": 12, "temperature": 0.8, "seed": 7}
    return asker.chat.completions.create(**{**usual, **request})


def a_conversation_goes_on_whole_and_streamed():
    asker = client()
    whole = talk(asker)
    choice = whole.choices[0]
    assert whole.object == "chat.completion" and whole.model == CHAT_MODEL, whole
    assert choice.message.role == "assistant" and choice.finish_reason in ("stop", "length"), choice
    assert 0 < whole.usage.completion_tokens <= 12 and whole.usage.prompt_tokens > 10, whole.usage
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert len(whole.model_extra["gainsay"]["claim"]) == 64, whole.model_extra
    assert talk(asker).choices[0].message.content == choice.message.content, "the seed decides nothing"

    chunks = list(talk(asker, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == choice.message.content, f"streamed {text!r}, whole {choice.message.content!r}"
    ends = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    assert ends == [choice.finish_reason], ends
    assert chunks[-1].usage == whole.usage and not chunks[-1].choices, chunks[-1]
    assert any("gainsay" in (chunk.model_extra or {}) for chunk in chunks), "no chunk says where the answer comes from"


def parameters_decide_what_is_said():
    asker = client()
    two = talk(asker, n=2).choices
    assert [choice.index for choice in two] == [0, 1]
    assert two[0].message.content != two[1].message.content, "two choices draw the same numbers"
    assert talk(asker, seed=8).choices[0].message.content != two[0].message.content, "another seed draws the same"
    one = talk(asker, max_completion_tokens=1, max_tokens=openai.omit)
    assert (one.usage.completion_tokens, one.choices[0].finish_reason) == (1, "length"), one
    greedy = talk(asker, temperature=0).choices[0].message.content
    part = next((part for part in (greedy[1:3], greedy[:2], greedy[:1]) if part and greedy.find(part) >= 0), None)
    if part:
        stopped = talk(asker, temperature=0, stop=[part]).choices[0]
        assert part not in stopped.message.content and stopped.finish_reason == "stop", stopped


def completions_continue_texts_and_tokens():
    asker = client()
    usual = {"model": CHAT_MODEL, "max_tokens": 6, "temperature": 0}
    by_text = asker.completions.create(prompt="def main", **usual)
    assert by_text.object == "text_completion" and by_text.choices[0].finish_reason in ("stop", "length")
    assert len(asker.completions.create(prompt=["def main", "return"], **usual).choices) == 2
    assert len(asker.completions.create(prompt=[20, 30, 40], **usual).choices) == 1
    streamed = "".join(chunk.choices[0].text for chunk in asker.completions.create(prompt="def main", stream=True, **usual))
    assert streamed == by_text.choices[0].text


def what_cannot_be_verified_is_refused():
    asker, bad = client(), openai.BadRequestError
    refused(bad, "unsupported_parameter", "logprobs", lambda: talk(asker, logprobs=True))
    refused(bad, "unsupported_parameter", "response_format", lambda: talk(asker, response_format={"type": "json_object"}))
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    refused(bad, "unsupported_parameter", "tools", lambda: talk(asker, tools=[tool]))
    refused(openai.NotFoundError, "unknown_model", "model", lambda: talk(asker, model="gpt-none"))


def langchain_speaks_to_it():
    from langchain_openai import ChatOpenAI

    asker = ChatOpenAI(model=CHAT_MODEL, base_url=f"{URL}/v1", api_key=API_KEY, temperature=0, max_tokens=8)
    said = asker.invoke("Who computed this?")
    assert said.response_metadata["finish_reason"] in ("stop", "length"), said
    assert said.usage_metadata["output_tokens"] > 0, said
    assert "".join(chunk.content for chunk in asker.stream("Who computed this?")) == said.content


async def the_asynchronous_client_works_too():
    async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=API_KEY, timeout=60) as asker:
        answers = await asyncio.gather(*[asker.embeddings.create(model=MODEL, input=text) for text in TEXTS * 4])
        assert [len(answer.data[0].embedding) for answer in answers] == [384] * 12
        assert answers[0].data[0].embedding == answers[3].data[0].embedding
        assert MODEL in [model.name async for model in asker.models.list()]


def too_many_requests_are_slowed_down():
    """The client waits as long as it is told to, and then succeeds."""
    hasty = client(max_retries=0)
    for _ in range(10_000):
        try:
            hasty.embeddings.create(model="gpt-none", input="x")
        except openai.NotFoundError:
            continue
        except openai.RateLimitError as error:
            assert error.code == "rate_limited", error
            assert int(error.response.headers["retry-after"]) >= 1 and error.response.headers["x-should-retry"] == "true"
            break
    else:
        raise AssertionError("ten thousand requests in a row were not too many")
    assert len(embed(client(max_retries=5), input=TEXTS[0]).data) == 1


def main():
    checks = [
        models_are_listed,
        every_form_of_input_is_embedded,
        both_encodings_hold_the_same_numbers,
        answers_say_where_they_come_from,
        refusals_are_typed,
        who_has_no_money_is_told_so,
        only_what_may_be_repeated_is_repeated,
        a_conversation_goes_on_whole_and_streamed,
        parameters_decide_what_is_said,
        completions_continue_texts_and_tokens,
        what_cannot_be_verified_is_refused,
        langchain_speaks_to_it,
        the_asynchronous_client_works_too,
        # Last: it uses the submitter's allowance up.
        too_many_requests_are_slowed_down,
    ]
    for check in checks:
        done = check()
        if done is not None:
            asyncio.run(done)
        print(f"openai {openai.__version__}: {check.__name__.replace('_', ' ')}", flush=True)


if __name__ == "__main__":
    main()
