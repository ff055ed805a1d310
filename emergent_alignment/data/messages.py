"""A conversation as plain values: a list of messages, without a tokenizer or a template."""

# {"role": "system", "user" or "assistant", "content": its text}
Message = dict[str, str]
