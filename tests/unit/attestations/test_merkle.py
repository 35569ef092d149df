"""Merkle trees."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.attestations import merkle

# The data and roots that the Certificate Transparency projects test with.
DATA = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657",
        "606162636465666768696a6b6c6d6e6f"]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = st.lists(st.binary(max_size=8), min_size=1, max_size=40)


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_certificate_transparency(size: int) -> None:
    """Our trees have the roots that other implementations of the RFC compute."""
    assert merkle.root([bytes.fromhex(text) for text in DATA[:size]]).hex() == ROOTS[size - 1]


def test_the_empty_tree_hashes_nothing() -> None:
    """The head of an empty tree is the hash of the empty string."""
    assert merkle.root([]) == hashlib.sha256().digest()


@given(LEAVES, st.data())
def test_every_leaf_is_proven_and_no_other(leaves: list[bytes], data: st.DataObject) -> None:
    """An inclusion proof holds for its leaf, place, size and root, and for nothing else."""
    index = data.draw(st.integers(0, len(leaves) - 1))
    root, proof = merkle.root(leaves), merkle.inclusion_proof(leaves, index)
    leaf, size = leaves[index], len(leaves)
    assert merkle.verify_inclusion(leaf, index, size, proof, root)
    assert not merkle.verify_inclusion(leaf + b"x", index, size, proof, root)
    assert not merkle.verify_inclusion(leaf, size, size, proof, root)
    assert not merkle.verify_inclusion(leaf, index, size, (*proof, b"x" * 32), root)
    assert not merkle.verify_inclusion(leaf, index, size, proof, b"x" * 32)
    if proof:
        assert not merkle.verify_inclusion(leaf, index, size, proof[:-1], root)


@given(LEAVES, st.data())
def test_any_change_of_the_leaves_changes_the_root(
    leaves: list[bytes], data: st.DataObject
) -> None:
    """Removing, adding or altering a leaf gives another root."""
    index = data.draw(st.integers(0, len(leaves) - 1))
    root = merkle.root(leaves)
    assert merkle.root(leaves[:index] + leaves[index + 1 :]) != root
    assert merkle.root([*leaves[:index], b"new leaf!", *leaves[index:]]) != root
    assert merkle.root([*leaves[:index], b"new leaf!", *leaves[index + 1 :]]) != root


def test_an_inner_node_is_no_leaf() -> None:
    """Two leaves' hashes joined do not make a leaf with the tree's root."""
    one, two = merkle.leaf_hash(b"1"), merkle.leaf_hash(b"2")
    root = merkle.root([b"1", b"2"])
    assert merkle.root([one + two]) != root
    assert not merkle.verify_inclusion(one + two, 0, 1, (), root)


@pytest.mark.parametrize("index", [-1, 3])
def test_a_leaf_that_is_not_there_has_no_proof(index: int) -> None:
    """Asking for a proof outside the tree is an error of the caller."""
    with pytest.raises(IndexError):
        merkle.inclusion_proof([b"a", b"b", b"c"], index)
