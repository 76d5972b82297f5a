"""Models that give a whole row one label."""

from unrolled.model.classes.ends import ClassEnds
from unrolled.model.classes.head import ClassHead, ClassHeadConfig

__all__ = ["ClassEnds", "ClassHead", "ClassHeadConfig"]
