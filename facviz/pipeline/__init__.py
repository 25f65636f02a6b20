"""The stages joined: each reads the workspace, runs pure code, writes shards, and is skipped when already done."""
