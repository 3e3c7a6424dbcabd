"""The real server of llama.cpp with a tiny model of random weights: no download, half a megabyte.

Runs in an environment of its own that has `xllamacpp` (llama.cpp's server as a wheel) and `gguf`:

    python scripts/tiny_server.py PORT [CONTEXT]

It prints its address when it is ready and ends with its stdin. `scripts/servers` sets it up.
"""

# What it imports is installed in its own environment, not in ours: nothing of it is known here.
# pyright: reportMissingImports=none, reportMissingModuleSource=none, reportUnknownArgumentType=none
# pyright: reportUnknownMemberType=none, reportUnknownVariableType=none

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import xllamacpp
from gguf import GGUFWriter, TokenType

WIDTH, LAYERS, HEADS, HIDDEN, TRAINED = 64, 2, 4, 128, 4096
CONTROLS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{%- if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif -%}"
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content or '' }}"
    "{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>"
    "{% endfor %}<|im_end|>\n{% endfor -%}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_model(path: Path) -> None:
    """A llama whose vocabulary are bytes, so that it needs no tokenizer's file."""
    random = np.random.default_rng(1)
    tokens = ["<unk>", *CONTROLS, *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [TokenType.UNKNOWN, *[TokenType.CONTROL] * len(CONTROLS), *[TokenType.BYTE] * 256]
    writer = GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(TRAINED)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(4)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)

    def tensor(name: str, *shape: int) -> None:
        values = random.standard_normal(shape) * 0.05 if len(shape) > 1 else np.ones(shape)
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))

    tensor("token_embd", len(tokens), WIDTH)
    tensor("output_norm", WIDTH)
    tensor("output", len(tokens), WIDTH)
    for layer in range(LAYERS):
        for norm in ("attn_norm", "ffn_norm"):
            tensor(f"blk.{layer}.{norm}", WIDTH)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensor(f"blk.{layer}.{part}", WIDTH, WIDTH)
        tensor(f"blk.{layer}.ffn_gate", HIDDEN, WIDTH)
        tensor(f"blk.{layer}.ffn_up", HIDDEN, WIDTH)
        tensor(f"blk.{layer}.ffn_down", WIDTH, HIDDEN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(port: int, context: int) -> None:
    """Serves until stdin ends."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "tiny.gguf")
        write_model(model)
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(model)
        parameters.model_alias = ["tiny"]
        parameters.hostnames = ["127.0.0.1"]
        parameters.port = port
        parameters.n_ctx = context
        parameters.n_parallel = 1
        parameters.use_jinja = True
        parameters.warmup = False
        server = xllamacpp.Server(parameters)
        print(server.listening_address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2048)
