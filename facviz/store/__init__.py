"""The workspace on disk. Shard files, the manifest and event files are the truth; every line of SQL lives here."""
