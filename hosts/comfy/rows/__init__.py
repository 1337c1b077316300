"""Whatever has one row per frame: prompts, masks, ControlNets, other nodes' patches."""
