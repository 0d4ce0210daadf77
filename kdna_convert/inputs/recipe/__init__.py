"""RECIPE: what becomes of which layer, as YAML, validated key by key. Importing it does not import torch.

The shortest recipe is one line, `scheme: basis`. All keys, with their defaults where they have one:

    scheme: cp                  # for every layer that no rule matches; without it only the rules convert layers
    options: {}                 # the fields of the scheme, such as rank; without a scheme, those of every rule's scheme
    routing: none               # or a name of `kdna ls routing`, or {name: se, width: 16}; also for dense layers
    include: []                 # patterns of layers to convert although they are excluded by default
    exclude: []                 # patterns of layers to keep as they are; overrides everything else
    rules:                      # exceptions, in any order; the most specific pattern decides
      - layers: layer3.*        # a pattern or a list of patterns
        scheme: basis           # default: the recipe's
        options: {}             # override the recipe's, if the scheme is the same
        routing: none           # default: the recipe's
        family: together        # these layers form one family; default: see `families`
    alternatives:               # schemes that the plan may use instead, for layers that no rule matches, where they
      - scheme: codebook        # lose less at the same budget
        options: {gain: filter}
    families:
      by: gain                  # all layers that can share, 1x1 layers only where sharing helps; or: group, cluster
      metric: explained         # or angles, cka, cosine
      linkage: average          # or complete, single
      threshold: 0.5            # of clusters: the smallest similarity at which families merge ...
      count: 4                  # ... or the number of families in a group
    budget: {params: 0.5}       # a share of the net's parameters; or {bytes: 1.2MB}, of the file; or {macs: 0.6}
    task: classify              # what the outputs mean. Default: chosen from what the net returns
    calibration: {images: 1000, heldout: 500, batch: 100, memory: 4GiB}
    fit: {sweeps: 150, progressive: 30}   # the most iterations of the joint fit of a family; and the steps of a
                                # fine-tune after each family, least error first. Default: no such fine-tune
    repair: []                  # after the fit, in order: refit, correct, reestimate, reconstruct; with options as in
                                # {name: reconstruct, steps: 200}. A step is kept only if it lowers the divergence
    repair_time: 3m             # the time limit of all repair steps together. Default: none
    nested: false               # order the directions of every family by importance, so that `kdna shrink` can cut it
    codec: entropy              # how the tensors are stored: or fp16, bf16, int8, int4. Default: as they are. A size
                                # in bytes is then the size of the coded file
    finetune: {train: adapters, time: 10m}   # what `kdna run` trains, and how long: or epochs or steps; also lr,
                                # batch_size and the other options of `kdna finetune`. Default: nothing is trained
    sharing: {below: 0.04, scheme: cp, options: {}, params: 0.25, repair: [], finetune: {}}   # with a codec: the keys
                                # that `kdna run` uses below this share of the original's bytes
    export: fastest             # what `kdna run` exports at the end, beside the folder: a form of `kdna export`
    seed: 0

patterns.py describes the patterns. By default these layers are excluded: the first convolution and the classifier,
which only their exact names include; depthwise layers, which any name, glob or `re:` of `include` includes; and Linear
layers, which `type:Linear` includes too. A rule includes only the layers that it names exactly.
"""

from .reading import bundled, check_options, json_schema, load_recipe, parse_recipe
from .resolving import Assignment, alternatives, inclusion, resolve
from .schema import Recipe
from .sizes import parse_count, parse_latency, parse_share, parse_size, parse_target, parse_time
from .steered_recipe import Forced, steered_recipe
from .writing import GOALS, SIZES, Answers, next_commands, recipe_text

__all__ = [
    "GOALS",
    "SIZES",
    "Answers",
    "Assignment",
    "Forced",
    "Recipe",
    "alternatives",
    "bundled",
    "check_options",
    "inclusion",
    "json_schema",
    "load_recipe",
    "next_commands",
    "parse_count",
    "parse_latency",
    "parse_recipe",
    "parse_share",
    "parse_size",
    "parse_target",
    "parse_time",
    "recipe_text",
    "resolve",
    "steered_recipe",
]
