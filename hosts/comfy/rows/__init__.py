"""Things that may have one row per frame: prompts, masks, ControlNets, other nodes' patches."""
