"""Corpora, tokenizers, prepared token shards and training batches; uses numpy, not torch."""
