"""The demonstration: the main job in the sandbox, stage by stage, with a live view."""
