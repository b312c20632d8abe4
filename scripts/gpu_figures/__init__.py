"""scripts/gpu-figures: a pack for a machine with a GPU and without a network, and what is done with it there.

Nothing in here needs a package: on that machine there is only Python at first. Data flows one way:

    pack (llama_sdist, wheels) -> install (backends) -> plan -> runner -> record -> report
"""
