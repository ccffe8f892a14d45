"""OpenAI's own Python client, unchanged, against a host with a built-in model. It knows nothing: only forms are looked at, and that they hold.

LLAMBO_HTTP names the host. Run by tests/tests/clients."""

import array
import asyncio
import base64
import json
import os
import time
import unittest
import urllib.request

import openai
from pydantic import BaseModel
from typing import Literal

HTTP = os.environ["LLAMBO_HTTP"]
MODEL = "demo-small"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Rome", "Oslo"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


def client(**options):
    return openai.OpenAI(base_url=f"{HTTP}/v1", api_key="none", **options)


def ask(content="What is ownership?", **options):
    options = {"model": MODEL, "max_tokens": 16, "temperature": 0} | options
    return client().chat.completions.create(messages=[{"role": "user", "content": content}], **options)


def metric(line):
    """The value of a metric by its name and labels as they stand in the text."""
    text = urllib.request.urlopen(f"{HTTP}/metrics", timeout=10).read().decode()
    return next((float(found.removeprefix(line)) for found in text.splitlines() if found.startswith(line + " ")), 0.0)


class Chat(unittest.TestCase):
    def test_whole_answer(self):
        answer = ask()
        choice = answer.choices[0]
        self.assertEqual((answer.object, answer.model, choice.message.role), ("chat.completion", MODEL, "assistant"))
        self.assertTrue(choice.message.content)
        self.assertIn(choice.finish_reason, ("stop", "length"))
        self.assertEqual(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)
        self.assertTrue(answer.system_fingerprint.startswith("fp_"))
        self.assertTrue(answer._request_id)

    def test_cached_tokens(self):
        # two blocks of cache at least
        words = "The borrow checker looks at every reference of a program. " * 12
        ask(words)
        details = ask(words).usage.prompt_tokens_details
        self.assertGreater(details.cached_tokens, 0)

    def test_stream_says_the_same(self):
        whole = ask().choices[0].message.content
        chunks = list(ask(stream=True))
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        self.assertEqual("".join(chunk.choices[0].delta.content or "" for chunk in chunks), whole)
        self.assertTrue(chunks[-1].choices[0].finish_reason)
        self.assertTrue(all(chunk.usage is None for chunk in chunks))

    def test_stream_usage(self):
        chunks = list(ask(stream=True, stream_options={"include_usage": True}))
        self.assertEqual((chunks[-1].choices, chunks[-1].usage.completion_tokens), ([], ask().usage.completion_tokens))
        self.assertTrue(all(chunk.usage is None for chunk in chunks[:-1]))

    def test_n(self):
        answer = ask(n=3, temperature=1.5, seed=7)
        self.assertEqual([choice.index for choice in answer.choices], [0, 1, 2])
        self.assertGreater(len({choice.message.content for choice in answer.choices}), 1)
        alone = ask(temperature=1.5, seed=8).choices[0].message.content
        self.assertEqual(answer.choices[1].message.content, alone)

    def test_seed(self):
        texts = [ask(temperature=1.5, seed=seed).choices[0].message.content for seed in (1, 1, 2)]
        self.assertEqual(texts[0], texts[1])
        self.assertNotEqual(texts[0], texts[2])

    def test_stop(self):
        whole = ask(max_tokens=40).choices[0].message.content
        stop = whole.split()[3]
        answer = ask(max_tokens=40, stop=[stop]).choices[0]
        self.assertEqual((answer.message.content, answer.finish_reason), (whole[: whole.index(stop)], "stop"))

    def test_logprobs(self):
        answer = ask(logprobs=True, top_logprobs=3, max_tokens=5)
        tokens = answer.choices[0].logprobs.content
        self.assertEqual(len(tokens), answer.usage.completion_tokens)
        self.assertEqual(b"".join(bytes(token.bytes) for token in tokens).decode(), answer.choices[0].message.content)
        for token in tokens:
            self.assertEqual(len(token.top_logprobs), 3)
            # the likeliest is taken at temperature 0, unless a penalty is against it
            self.assertLessEqual(token.logprob, token.top_logprobs[0].logprob + 1e-4)
            self.assertLessEqual(token.top_logprobs[0].logprob, 0)
        streamed = [chunk.choices[0].logprobs for chunk in ask(logprobs=True, max_tokens=5, stream=True)]
        streamed = [token.token for part in streamed if part for token in part.content]
        self.assertEqual(streamed, [token.token for token in tokens])

    def test_logit_bias(self):
        # in a grammar of two, the bias decides
        both = {"grammar": 'root ::= "a" | "b"'}
        ids = {}
        for token in range(300):
            try:
                # what comes before the one token that is generated is the prompt's own
                answer = client().completions.create(model=MODEL, prompt=[token], echo=True, max_tokens=1, extra_body={"grammar": 'root ::= "."'})
            except openai.BadRequestError:
                continue  # a token without text, or a part of a character
            ids[answer.choices[0].text[:-1]] = token
            if {"a", "b"} <= ids.keys():
                break
        for text in "ab":
            answer = ask(extra_body=both, logit_bias={str(ids[text]): 100})
            self.assertEqual(answer.choices[0].message.content, text)

    def test_parsed_json(self):
        class Point(BaseModel):
            color: Literal["red", "blue"]
            x: Literal[1, 2, 3]

        completion = client().chat.completions.parse(
            model=MODEL, messages=[{"role": "user", "content": "A point:"}], response_format=Point, max_tokens=100
        )
        point = completion.choices[0].message.parsed
        self.assertIn(point.color, ("red", "blue"))
        self.assertIn(point.x, (1, 2, 3))
        self.assertEqual(list(json.loads(completion.choices[0].message.content)), ["color", "x"])

    def test_tool_that_must_be_called(self):
        for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
            answer = ask(tools=[WEATHER], tool_choice=choice, max_tokens=60).choices[0]
            call = answer.message.tool_calls[0]
            self.assertEqual((answer.finish_reason, call.function.name), ("tool_calls", "get_weather"))
            arguments = json.loads(call.function.arguments)
            self.assertIn(arguments["city"], ("Rome", "Oslo"))
            self.assertIn(arguments["days"], range(1, 10))
        history = [
            {"role": "user", "content": "Weather?"},
            answer.message,
            {"role": "tool", "tool_call_id": call.id, "content": "sun"},
        ]
        after = client().chat.completions.create(model=MODEL, messages=history, tools=[WEATHER], max_tokens=8)
        self.assertIn(after.choices[0].finish_reason, ("stop", "length", "tool_calls"))

    def test_streamed_tool(self):
        with client().chat.completions.stream(
            model=MODEL, messages=[{"role": "user", "content": "Weather?"}], tools=[WEATHER], tool_choice="required", max_tokens=60
        ) as stream:
            deltas = [event for event in stream if event.type == "tool_calls.function.arguments.delta"]
            call = stream.get_final_completion().choices[0].message.tool_calls[0]
        self.assertGreater(len(deltas), 1)
        self.assertEqual(call.function.parsed_arguments, json.loads("".join(delta.arguments_delta for delta in deltas)))

    def test_many_at_a_time(self):
        async def all_of_them():
            asynchronous = openai.AsyncOpenAI(base_url=f"{HTTP}/v1", api_key="none")
            asked = [
                asynchronous.chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": f"Number {i}"}], max_tokens=8, temperature=0
                )
                for i in range(30)
            ]
            return await asyncio.gather(*asked)

        answers = asyncio.run(all_of_them())
        self.assertEqual(len({answer.id for answer in answers}), 30)


class Ends(unittest.TestCase):
    def test_abort_of_a_stream(self):
        line = 'llambo_edge_requests_total{method="/v1/chat/completions",code="CANCELLED"}'
        before = metric(line)
        stream = ask(stream=True, max_tokens=900, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
        until = time.monotonic() + 20
        while metric(line) == before or metric("llambo_orchestrator_in_flight_requests") > 0:
            self.assertLess(time.monotonic(), until, "the request goes on without its client")
            time.sleep(0.02)

    def test_timeout(self):
        with self.assertRaises(openai.APITimeoutError):
            hasty = client(timeout=0.05, max_retries=0)
            hasty.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "x"}], max_tokens=900, n=20, extra_body={"ignore_eos": True}
            )

    def test_deadline(self):
        with self.assertRaises(openai.InternalServerError) as told:
            ask(max_tokens=900, n=20, extra_body={"ignore_eos": True}, extra_headers={"llambo-timeout-ms": "60"})
        self.assertEqual((told.exception.status_code, told.exception.code), (504, "deadline_exceeded"))


class Errors(unittest.TestCase):
    def test_bad_request(self):
        with self.assertRaises(openai.BadRequestError) as told:
            ask(temperature=99)
        self.assertEqual((told.exception.param, told.exception.type), ("temperature", "invalid_request_error"))
        self.assertIn("between 0 and 10", told.exception.message)

    def test_image(self):
        with self.assertRaises(openai.BadRequestError) as told:
            ask([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}])
        self.assertEqual(told.exception.param, "messages[0].content[0]")

    def test_unknown_model(self):
        with self.assertRaises(openai.NotFoundError) as told:
            ask(model="gpt-0")
        self.assertEqual(told.exception.code, "model_not_found")

    def test_prompt_that_is_too_long(self):
        with self.assertRaises(openai.BadRequestError) as told:
            ask("word " * 5000)
        self.assertEqual(told.exception.code, "context_length_exceeded")

    def test_schema_that_is_none(self):
        with self.assertRaises(openai.BadRequestError):
            ask(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}})


class Others(unittest.TestCase):
    def test_completions(self):
        answer = client().completions.create(model=MODEL, prompt=["A trait is", "Each crate"], max_tokens=4, temperature=0, echo=True)
        self.assertTrue(answer.choices[0].text.startswith("A trait is"))
        self.assertTrue(answer.choices[1].text.startswith("Each crate"))
        whole = client().completions.create(model=MODEL, prompt="A trait is", max_tokens=4, temperature=0, logprobs=2).choices[0]
        self.assertEqual("A trait is" + whole.text, answer.choices[0].text)
        chunks = list(client().completions.create(model=MODEL, prompt="A trait is", max_tokens=4, temperature=0, stream=True))
        self.assertEqual("".join(chunk.choices[0].text for chunk in chunks), whole.text)

    def test_logprobs_of_completions(self):
        told = client().completions.create(model=MODEL, prompt="A trait is", max_tokens=4, temperature=0, logprobs=2).choices[0]
        self.assertEqual("".join(told.logprobs.tokens), told.text)
        self.assertEqual((len(told.logprobs.top_logprobs[0]), told.logprobs.text_offset[0]), (2, 0))

    def test_embeddings(self):
        texts = ["the borrow checker", "cargo"]
        # the client asks for base64 by itself, and unpacks it
        unpacked = client().embeddings.create(model=MODEL, input=texts)
        numbers = client().embeddings.create(model=MODEL, input=texts, encoding_format="float")
        packed = client().embeddings.create(model=MODEL, input="cargo", encoding_format="base64")
        # as 32-bit floats, which both are
        floats = [array.array("f", one.embedding) for one in numbers.data]
        self.assertEqual([array.array("f", one.embedding) for one in unpacked.data], floats)
        self.assertEqual(array.array("f", base64.b64decode(packed.data[0].embedding)), floats[1])
        self.assertAlmostEqual(sum(x * x for x in numbers.data[0].embedding), 1, places=3)
        self.assertGreater(numbers.usage.prompt_tokens, 1)

    def test_models(self):
        self.assertEqual([model.id for model in client().models.list()], [MODEL])
        self.assertEqual(client().models.retrieve(MODEL).object, "model")
        with self.assertRaises(openai.NotFoundError):
            client().models.retrieve("somebody/else")


if __name__ == "__main__":
    unittest.main(verbosity=2)
