"""A recipe says what should become of which layer: YAML, checked key by key, without torch.

The shortest recipe is one line, `scheme: basis`. Every key, with its default where it has one:

    scheme: cp                  # for every layer that no rule names; left out, only the rules' layers are converted
    options: {}                 # the scheme's own fields, e.g. rank; without a scheme, those of every rule's scheme
    routing: none               # or a name of `kdna ls routing`, or {name: se, width: 16}; dense layers can have it too
    include: []                 # patterns of layers to convert although they are left out by default
    exclude: []                 # patterns of layers to leave as they are; wins over everything else
    rules:                      # exceptions, in any order: the most precise pattern decides
      - layers: layer3.*        # a pattern or a list of them
        scheme: basis           # default: the recipe's
        options: {}             # go over the recipe's, unless that has another scheme
        routing: none           # default: the recipe's
        family: together        # these layers are one family; left out, `families` decides
    alternatives:               # schemes that the plan may use instead, for layers that no rule claims, where that
      - scheme: codebook        # loses less at the same budget
        options: {gain: filter}
    families:
      by: gain                  # all that can share, but 1x1 layers only where they gain; or: group, cluster
      metric: explained         # or angles, cka, cosine
      linkage: average          # or complete, single
      threshold: 0.5            # clusters: the smallest similarity at which families join ...
      count: 4                  # ... or how many families a group has
    budget: {params: 0.5}       # a share of the net's; or {bytes: 1.2MB}, of the file; or {macs: 0.6}
    calibration: {images: 1000, heldout: 500, batch: 100, memory: 4GiB}
    fit: {sweeps: 150, progressive: 30}   # the most iterations that the joint fit of a family may take; and steps of a
                                # fine-tune after each, least error first: left out, all are fitted and none trained
    repair: []                  # after the fit, in order: refit, correct, reestimate, reconstruct; with options,
                                # as {name: reconstruct, steps: 200}, and kept only where it lowers the divergence
    nested: false               # order every family's directions by their worth, so that `kdna shrink` can cut it later
    codec: entropy              # how the tensors are stored at the end, or fp16, bf16, int8, int4; left out, as they
                                # are. A size in bytes is then the coded file's
    finetune: {train: adapters, time: 10m}   # what `kdna run` trains, and how long, or epochs or steps; lr, batch_size
                                # and the other options of `kdna finetune` too. Left out, nothing is trained
    sharing: {below: 0.04, scheme: cp, options: {}, params: 0.25, repair: [], finetune: {}}   # with a codec: below
                                # this share of the original's bytes `kdna run` goes by these keys instead
    seed: 0

patterns.py describes the patterns. Left out by default: the stem (the first convolution) and the
classifier, which only their exact names bring back; depthwise layers, which any name, glob or `re:` of `include` does;
and Linear layers, for which `type:Linear` will do as well. A rule brings back only what it names exactly.
"""

from .reading import bundled, check_options, json_schema, load_recipe, parse_recipe
from .resolving import Assignment, alternatives, resolve
from .schema import Recipe
from .sizes import parse_share, parse_size, parse_target, parse_time
from .writing import GOALS, SIZES, Answers, next_commands, recipe_text

__all__ = [
    "GOALS",
    "SIZES",
    "Answers",
    "Assignment",
    "Recipe",
    "alternatives",
    "bundled",
    "check_options",
    "json_schema",
    "load_recipe",
    "next_commands",
    "parse_recipe",
    "parse_share",
    "parse_size",
    "parse_target",
    "parse_time",
    "recipe_text",
    "resolve",
]
