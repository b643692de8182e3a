"""The token ids that AutoTokenizer gives: token_ids.py LINES FOLDER... (a JSON list of strings; the same in all folders)."""

import json
import sys
from pathlib import Path

from common import say
from transformers import AutoTokenizer

lines = json.loads(Path(sys.argv[1]).read_text())
ids = [
    [tokenizer(line)["input_ids"] for line in lines] for tokenizer in map(AutoTokenizer.from_pretrained, sys.argv[2:])
]
assert all(others == ids[0] for others in ids), "the folders' tokenizers differ"
say(ids[0])
