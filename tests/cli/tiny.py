"""Settings of a training run that takes no time."""

__all__ = ["tiny"]


def tiny() -> list[str]:
    settings = ["train.steps=6", "model.width=8", "stream.columns=4", "stream.window=12", "train.final_eval=false"]
    return [part for setting in settings for part in ("--set", setting)]
