# One door to everything. `just` lists the recipes.

# what there is
default:
    @just --list

# the whole mesh on this machine: demo services, their sidecars, some traffic
demo:
    cargo run --release -p leno-cli -- up -f manifests/demo

# everything CI runs; name stages to run only those, for example `just test unit embedded`
test *stages:
    tests/run {{stages}}

# formatting, lints, docs
check:
    tests/run format lint docs

# write crds/ from the types
crds:
    UPDATE_CRDS=1 cargo test -q -p leno-api crds_folder_equals_the_types

# rewrite the scenario snapshots; read the diff before committing it
scenarios:
    UPDATE_SCENARIOS=1 cargo test -q --test scenarios

# a real cluster with Leno installed, to play with (tests/cluster/down ends it)
cluster:
    tests/cluster/up
    tests/cluster/install
