"""Kafka: topics, tables read to their end, ownership and epochs, ordered publishing, dead letters, the runner."""
