"""The token ids that AutoTokenizer gives: token_ids.py FOLDER LINES (a JSON list of strings)."""

import json
import sys
from pathlib import Path

from common import say
from transformers import AutoTokenizer

folder, lines = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
say([tokenizer(line)["input_ids"] for line in json.loads(Path(lines).read_text())])
