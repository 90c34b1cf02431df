"""The journal on disk: what publish() accepted survives the process and a power cut (docs/journal.md)."""
