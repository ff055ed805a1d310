"""The reliability campaign: what a run, a server and a sandbox meet in the world, tried for real.

    make campaign                                      # all kinds, their usual numbers of trials
    PYTHONPATH=tests python -m campaign kills --trials 40 --seed 1 --out runs/campaign

Each kind is a module with `TRIALS`, its usual number, and `trials(count, seed, folder)`.
"""
