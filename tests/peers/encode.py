"""Seconds in which HF tokenizers encodes a list of documents at once: encode.py TOKENIZER DOCUMENTS."""

import json
import sys
import time

from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file(sys.argv[1])
with open(sys.argv[2], encoding="utf-8") as file:
    documents = json.load(file)
tokenizer.encode_batch(documents, add_special_tokens=False)
begun = time.perf_counter()
tokenizer.encode_batch(documents, add_special_tokens=False)
print(json.dumps({"seconds": time.perf_counter() - begun}))
