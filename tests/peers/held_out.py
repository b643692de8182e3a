"""transformers' own held-out losses of releases: held_out.py [FOLDER JOB]... takes the blocks that each job names."""

import sys

from common import Job, load, pairs, say

say([Job(job).held_out(load(folder)) for folder, job in pairs(sys.argv[1:])])
