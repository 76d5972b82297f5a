"""Train a small model from Python, measure it, and let it write.

Shows the whole path: a configuration with settings, training into a run folder, evaluation with its exact totals,
learning from the text while it is read, and generation. The corpus comes with Python; nothing is downloaded.

    python examples/train_and_score.py [STEPS [TOKENS]]      # absent: 300 steps; 4,000 tokens are measured
"""

import sys

import unrolled as ur


def main(steps: int = 300, tokens: int = 4_000) -> None:
    config = ur.experiment(
        corpus="pydoc",
        settings=[
            f"train.steps={steps}",
            "train.final_eval=false",
            f"train.valid_tokens={tokens}",
            "model.width=128",
            "model.cell.factor=64",
        ],
    )
    run = ur.train(config)  # runs/run-1, or the next that is free
    print(f"run: {run}")

    result = ur.evaluate(run, split="test", limit=tokens)
    figures = result.figures()
    print(f"{result.tokens:,} tokens, {result.nats:.1f} nats: {figures['bits_per_character']:.3f} bits per character")

    adapting = ur.evaluate(run, split="test", limit=tokens, dynamic={"rule": "sgd", "lr": 0.1, "segment": 20})
    print(f"learning as it reads: {adapting.figures()['bits_per_character']:.3f} ({adapting.protocol.name})")

    (written,) = ur.generate(run, "The ", tokens=120, temperature=0.7, seed=1)
    print(f"sample: {'The ' + written.text!r}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
