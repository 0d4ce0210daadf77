"""The stages of a conversion, in order: analyze, plan, convert, repair, finetune, code, evaluate, export."""
