"""Trainer of transformers: the loss falls, and a resumed training is the uninterrupted one."""

import importlib.util

import pytest
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from serve.hf.models import V, five

pytestmark = pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="Trainer needs accelerate")


class Cycles(Dataset):
    """Rows that count upwards from anywhere."""

    def __len__(self):
        return 64

    def __getitem__(self, index):
        ids = (torch.arange(12) * (1 + index % 2) + index) % V
        return {"input_ids": ids, "labels": ids}


def trained(folder, steps, resume=None, dropout=0.2):
    model = five("lstm", dropout={"between": dropout, "output": dropout})
    arguments = TrainingArguments(
        str(folder), max_steps=steps, save_steps=10, logging_steps=1, learning_rate=0.01, report_to="none", seed=1,
        per_device_train_batch_size=8, use_cpu=True, disable_tqdm=True, lr_scheduler_type="constant",
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=Cycles())
    trainer.train(resume_from_checkpoint=resume)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return model, losses


@pytest.mark.slow
def test_twenty_steps_and_a_resume(tmp_path):
    whole, losses = trained(tmp_path / "whole", 20)
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    resumed, again = trained(tmp_path / "again", 20, resume=str(tmp_path / "whole" / "checkpoint-10"))
    assert again[10:] == losses[10:]
    for (name, value), other in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(value, other), name
    assert trained(tmp_path / "dry", 3, dropout=0.0)[1] != losses[:3]  # dropout is drawn in training


def test_in_training_mode_masks_are_drawn_from_torch():
    model = five("lstm", dropout={"output": 0.5}).train()
    text = torch.arange(9).view(1, 9)
    torch.manual_seed(1)
    first, second = model(text, labels=text).loss, model(text, labels=text).loss
    torch.manual_seed(1)
    assert torch.equal(model(text, labels=text).loss, first)
    assert not torch.equal(first, second)
    assert torch.equal(model.eval()(text).logits, model(text).logits)
