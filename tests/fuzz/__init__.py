"""Damaged and hostile inputs by the thousand: every one ends with a result or one plain sentence."""
