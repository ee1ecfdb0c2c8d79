"""The dataset folder trains as it stands: one step with each of TRL's trainers, nothing renamed, removed or converted.

    python3.11 -m venv trl && trl/bin/pip install torch==2.13.0 "trl>=1.16"
    trl/bin/python tests/bench/trainers.py RUN/dataset

A venv of its own: it needs nothing of the pipeline. The model is tiny, random and made here, its tokenizer is trained on the
dataset's own texts, and nothing is asked of the network. Every row is prepared by the trainer, and the tokens that count are
read back: they must spell the reply and its end, no more and no less. `counted` is their share of all tokens.
Exits 1 if a trainer fails, 2 if TRL is not there.
"""

import math
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
END, PAD = "<|im_end|>", "<|pad|>"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
REPLIES = {  # by table: the replies of a row, and where its trainer leaves the tokens of each
    "sft": {"completion": "labels"},
    "preference": {"chosen": "chosen_ids", "rejected": "rejected_ids"},
    "kto": {"completion": "completion_ids"},
}
TRAINED_ON = 2000  # rows, for the tokenizer


def texts(row: dict[str, Any]) -> Iterator[str]:
    for value in (row[name] for name in ("prompt", "completion", "chosen", "rejected") if name in row):
        yield from [value] if isinstance(value, str) else (message["content"] for message in value)


def make_model(folder: Path, tables: dict[str, Any]) -> Any:
    """Its tokenizer; the model is left in the folder, as trainers take a model (DPO and KTO load it twice)."""
    import tokenizers
    import torch
    import transformers

    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=["<|im_start|>", END, PAD],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rows = (row for table in tables.values() for row in table.select(range(min(len(table), TRAINED_ON))))
    bpe.train_from_iterator((text for row in rows for text in texts(row)), trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=END, pad_token=PAD, chat_template=CHATML, clean_up_tokenization_spaces=False
    )
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return tokenizer


def make_trainer(name: str, table: Any, model: Path, tokenizer: Any) -> Any:
    import trl
    from transformers.trainer_callback import PrinterCallback

    kinds = {
        "sft": (trl.SFTTrainer, trl.SFTConfig),
        "preference": (trl.DPOTrainer, trl.DPOConfig),
        "kto": (trl.KTOTrainer, trl.KTOConfig),
    }
    kind, config = kinds[name]
    args = config(
        output_dir=str(model / "out"),
        max_steps=1,
        per_device_train_batch_size=2,
        max_length=None,  # nothing is cut
        use_cpu=True,
        bf16=False,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    trainer = kind(model=str(model), args=args, train_dataset=table, processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    return trainer


def counted(name: str, table: Any, prepared: Any, tokenizer: Any) -> float:
    """The share of tokens that count, once they are known to be the replies' and all of them."""
    if len(prepared) != len(table):
        raise AssertionError(f"{len(table) - len(prepared)} of {len(table)} rows were left out")
    count = whole = 0
    for place, (row, made) in enumerate(zip(table, prepared, strict=True)):
        for reply, where in REPLIES[name].items():
            tokens = [token for token in made[where] if token != -100]
            said = row[reply] + END if isinstance(row[reply], str) else row[reply][-1]["content"] + END + "\n"
            if (found := tokenizer.decode(tokens)) != said:
                raise AssertionError(f"row {place}: what counts is {found!r}, and the {reply} is {said!r}")
            count += len(tokens)
            whole += len(made["input_ids"]) if name == "sft" else len(made["prompt_ids"]) + len(tokens)
    return count / whole


def step(name: str, table: Any, model: Path, tokenizer: Any) -> None:
    if name == "kto" and len(set(table["label"])) < 2:
        raise AssertionError("every label is the same: KTO learns from the difference")
    start = time.perf_counter()
    trainer = make_trainer(name, table, model, tokenizer)
    share = counted(name, table, trainer.train_dataset, tokenizer)
    loss = trainer.train().training_loss
    seconds = time.perf_counter() - start
    if not math.isfinite(loss):
        raise AssertionError(f"the loss is {loss}")
    form = "text" if isinstance(table[0]["prompt"], str) else "messages"
    kind = type(trainer).__name__
    print(f"{name:11} {len(table):6} {form:9} {kind:11} {loss:7.4f} {share:8.0%} {seconds:8.1f}", flush=True)


def main() -> int:
    if len(sys.argv) != 2:
        print("which dataset? python tests/bench/trainers.py RUN/dataset", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HF_HOME"] = scratch
        try:
            import datasets
            import transformers
            import trl
        except ModuleNotFoundError as missing:
            print(
                f'TRL is not installed here ({missing.name} is missing): pip install torch==2.13.0 "trl>=1.16"',
                file=sys.stderr,
            )
            return 2
        warnings.simplefilter("ignore", FutureWarning)  # TRL's and transformers', about each other
        datasets.disable_progress_bars()
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        folder, model = sys.argv[1], Path(scratch) / "model"
        there = datasets.get_dataset_config_names(folder)
        tables = {name: datasets.load_dataset(folder, name, split="train") for name in REPLIES if name in there}
        if not tables:
            print(f"{folder} has none of {', '.join(REPLIES)}", file=sys.stderr)
            return 1
        tokenizer = make_model(model, tables)
        print(f"TRL {trl.__version__}, transformers {transformers.__version__}, datasets {datasets.__version__}")
        print(f"{'table':11} {'rows':>6} {'rows are':9} {'trainer':11} {'loss':>7} {'counted':>8} {'seconds':>8}")
        failed = False
        for name in REPLIES:
            if name not in tables:
                print(f"{name:11} not in this dataset")
                continue
            try:
                step(name, tables[name], model, tokenizer)
            except Exception as error:
                failed = True
                traceback.print_exc()
                print(f"{name:11} {len(tables[name]):6} FAILED {type(error).__name__}: {error}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
