"""A stand-in for vLLM on this machine: a real model behind completions of token ids, and adapters loaded at run time.

It speaks what vLLM documents of `/v1/models`, `/v1/completions` with `return_token_ids`, and `/v1/load_lora_adapter`.
"""

import copy
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig

from chat_server import ChatServer, Reply, Request

Change = Callable[[dict[str, Any], Request], Any]


def as_is(choice: dict[str, Any], request: Request) -> dict[str, Any]:
    return choice


class TokenServer(ChatServer):
    """Serves `model` as `name`; `change` may spoil a choice or give a `Reply` in its place.

    `adapters` says what becomes of one that is to be loaded: it is loaded, refused, or ignored.
    """

    def __init__(self, model: Any, name: str = "served", change: Change = as_is, adapters: str = "loaded") -> None:
        super().__init__(self.served)
        self.base, self.models, self.change, self.adapters = name, {name: model}, change, adapters
        self.one_at_a_time = threading.Lock()

    def asked(self, path: str) -> list[dict[str, Any]]:
        """The bodies of all requests to a path."""
        return [request.body for request in self.requests if request.path == f"/v1/{path}"]

    def served(self, request: Request, number: int) -> Reply:
        with self.one_at_a_time:
            return {
                "/v1/models": self.listed,
                "/v1/completions": self.completed,
                "/v1/load_lora_adapter": self.loaded,
                "/v1/unload_lora_adapter": self.unloaded,
            }[request.path](request)

    def listed(self, request: Request) -> Reply:
        cards = [{"id": name, "object": "model", "parent": None} for name in self.models]
        for card in cards:
            card["parent"] = None if card["id"] == self.base else self.base
        return Reply(body=json.dumps({"object": "list", "data": cards}).encode())

    def completed(self, request: Request) -> Reply:
        body = request.body
        if body["model"] not in self.models:
            return Reply(
                404, json.dumps({"error": {"message": f"The model `{body['model']}` does not exist."}}).encode()
            )
        ids = self.generated(self.models[body["model"]], body)
        ended = ids[-1] in body["stop_token_ids"]
        choice = {"index": 0, "text": "", "finish_reason": "stop" if ended else "length"}
        if body.get("return_token_ids"):
            choice |= {"token_ids": ids, "prompt_token_ids": body["prompt"]}
        choice = self.change(choice, request)
        if isinstance(choice, Reply):
            return choice
        return Reply(
            body=json.dumps({"object": "text_completion", "model": body["model"], "choices": [choice]}).encode()
        )

    def generated(self, model: Any, body: dict[str, Any]) -> list[int]:
        settings = {"max_new_tokens": body["max_tokens"], "eos_token_id": body["stop_token_ids"], "pad_token_id": 0}
        if body["temperature"]:
            settings |= {"do_sample": True, "temperature": body["temperature"], "top_k": 0, "top_p": body["top_p"]}
        prompt = torch.tensor([body["prompt"]])
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(body.get("seed", 0))
            mask = torch.ones_like(prompt)
            made = model.generate(input_ids=prompt, attention_mask=mask, generation_config=GenerationConfig(**settings))
        return made[0, prompt.shape[1] :].tolist()

    def loaded(self, request: Request) -> Reply:
        name, path = request.body["lora_name"], Path(request.body["lora_path"])
        if self.adapters == "refused" or not (path / "adapter_model.safetensors").is_file():
            return Reply(404, json.dumps({"error": {"message": f"Loading lora {name} failed"}}).encode())
        base = self.models[self.base]
        ignored = self.adapters == "ignored"
        self.models[name] = base if ignored else PeftModel.from_pretrained(copy.deepcopy(base), path).eval()
        return Reply(body=f"Success: LoRA adapter '{name}' added successfully.".encode())

    def unloaded(self, request: Request) -> Reply:
        del self.models[request.body["lora_name"]]
        return Reply(body=b"Success")
