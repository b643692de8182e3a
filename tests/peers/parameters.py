"""How many parameters transformers gives models: parameters.py PRESETS ([{"id", "config"}]). No weight is made.

A family that transformers does not carry has null.
"""

import json
import sys
from pathlib import Path

from common import say, torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING


def count(config):
    if config["model_type"] not in CONFIG_MAPPING:
        return None
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    # A tied embedding is one parameter under two names, and comes once.
    return sum(parameter.numel() for parameter in model.parameters())


say({preset["id"]: count(preset["config"]) for preset in json.loads(Path(sys.argv[1]).read_text())})
