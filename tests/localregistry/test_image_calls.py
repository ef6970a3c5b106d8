"""The operations on images: what PutImage takes, how tags move, what is listed and removed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from registry_driver import (
    ACCOUNT,
    CONFIG_TYPE,
    INDEX_TYPE,
    LAYER_TYPE,
    MANIFEST_TYPE,
    NAME,
    SMALL_PARTS,
    answers,
    connect,
    descriptor,
    manifest_text,
    push_image,
    put_image,
    sha256,
    upload,
)

from asyncpush.localregistry import LocalRegistry

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning"),
]

NOWHERE = "sha256:" + "0" * 64
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


async def a_manifest(ecr: Any, **more: Any) -> str:
    return manifest_text(await upload(ecr, b"config"), [], **more)


def index_text(*children: str, **more: Any) -> str:
    manifests = [descriptor(child, MANIFEST_TYPE) for child in children]
    document = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}
    return json.dumps(document | more)


async def images(ecr: Any) -> set[tuple[str, str]]:
    found = (await ecr.list_images(repositoryName=NAME))["imageIds"]
    return {(image["imageDigest"], image.get("imageTag", "")) for image in found}


async def test_manifest_is_kept_as_it_was_sent(ecr: Any) -> None:
    text = await a_manifest(ecr, annotations={"name": "é\u2028\U0001f600"})
    text = text.replace("\\u00e9", "é")
    digest = await put_image(ecr, text, "v1", imageDigest=sha256(text))
    assert digest == sha256(text)
    answer = await ecr.batch_get_image(
        repositoryName=NAME,
        imageIds=[{"imageTag": "v1"}, {"imageDigest": digest}, {"imageTag": "no"}, {}],
    )
    assert [image["imageManifest"] for image in answer["images"]] == [text, text]
    assert answer["images"][0]["imageId"] == {"imageDigest": digest, "imageTag": "v1"}
    assert answer["images"][0]["imageManifestMediaType"] == MANIFEST_TYPE
    codes = [failure["failureCode"] for failure in answer["failures"]]
    assert codes == ["ImageNotFound", "MissingDigestAndTag"]


async def test_media_type_comes_from_the_call_or_the_document(ecr: Any) -> None:
    config = await upload(ecr, b"config")
    bare = json.dumps({"schemaVersion": 2, "config": descriptor(config, CONFIG_TYPE), "layers": []})
    await put_image(ecr, bare, "bare")
    with answers("InvalidParameterException", "mediaType"):
        await put_image(
            ecr, manifest_text(config, []), imageManifestMediaType=INDEX_TYPE, imageTag="x"
        )
    found = await ecr.describe_images(repositoryName=NAME, imageIds=[{"imageTag": "bare"}])
    assert found["imageDetails"][0]["imageManifestMediaType"] == MANIFEST_TYPE


async def test_digest_that_is_not_the_manifests_is_refused(ecr: Any) -> None:
    text = await a_manifest(ecr)
    with answers("ImageDigestDoesNotMatchException", sha256(text)):
        await put_image(ecr, text, "v1", imageDigest=NOWHERE)
    assert await images(ecr) == set()


async def test_layers_and_config_must_be_there_and_foreign_ones_need_not(ecr: Any) -> None:
    config = await upload(ecr, b"config")
    with answers("LayersNotFoundException", NOWHERE):
        await put_image(ecr, manifest_text(config, [descriptor(NOWHERE)]))
    with answers("LayersNotFoundException", NOWHERE):
        await put_image(ecr, manifest_text(NOWHERE, []))
    with answers("LayersNotFoundException"):
        await put_image(ecr, manifest_text(config, [descriptor(NOWHERE, urls=["http://x"])]))
    with answers("LayersNotFoundException"):
        await put_image(ecr, manifest_text(config, [descriptor(NOWHERE, FOREIGN)]))
    foreign = descriptor(NOWHERE, FOREIGN, urls=["http://x"])
    await put_image(ecr, manifest_text(config, [foreign]))


async def test_manifest_is_no_layer_and_layer_no_manifest(ecr: Any) -> None:
    text = await a_manifest(ecr)
    digest = await put_image(ecr, text)
    with answers("LayersNotFoundException", digest):
        await put_image(ecr, manifest_text(await upload(ecr, b"c2"), [descriptor(digest)]))
    layer = await upload(ecr, text.encode() + b" ")
    with answers("ReferencedImagesNotFoundException", layer):
        await put_image(ecr, index_text(layer))


async def test_children_of_an_index_must_be_there(ecr: Any) -> None:
    child = await push_image(ecr, "child")
    with answers("ReferencedImagesNotFoundException", NOWHERE):
        await put_image(ecr, index_text(child, NOWHERE), "v1")
    index = await put_image(ecr, index_text(child), "v1")
    inner = await put_image(ecr, index_text(index))
    found = await ecr.describe_images(repositoryName=NAME, imageIds=[{"imageDigest": inner}])
    assert found["imageDetails"][0]["imageManifestMediaType"] == INDEX_TYPE


async def test_subject_need_not_exist(ecr: Any) -> None:
    text = await a_manifest(ecr, subject=descriptor(NOWHERE, MANIFEST_TYPE), artifactType="a/b")
    digest = await put_image(ecr, text)
    found = await ecr.describe_images(repositoryName=NAME, imageIds=[{"imageDigest": digest}])
    detail = found["imageDetails"][0]
    assert detail["subjectManifestDigest"] == NOWHERE
    assert detail["artifactMediaType"] == "a/b"


async def test_same_image_again_is_already_there(ecr: Any) -> None:
    text = await a_manifest(ecr)
    digest = await put_image(ecr, text)
    with answers("ImageAlreadyExistsException", f"Image with digest '{digest}' already exists"):
        await put_image(ecr, text)
    await put_image(ecr, text, "v1")
    with answers(
        "ImageAlreadyExistsException",
        f"Image with digest '{digest}' and tag 'v1' already exists in the repository with name "
        f"'{NAME}' in registry with id '{ACCOUNT}'",
    ):
        await put_image(ecr, text, "v1")
    with answers("ImageAlreadyExistsException"):
        await put_image(ecr, text)
    await put_image(ecr, text, "v2")
    assert await images(ecr) == {(digest, "v1"), (digest, "v2")}


async def test_tag_moves_in_a_mutable_repository(ecr: Any) -> None:
    first = await push_image(ecr, "1", "v1")
    second = await push_image(ecr, "2", "v1")
    assert await images(ecr) == {(first, ""), (second, "v1")}


async def test_tag_stays_in_an_immutable_repository(ecr: Any) -> None:
    await ecr.put_image_tag_mutability(repositoryName=NAME, imageTagMutability="IMMUTABLE")
    first = await push_image(ecr, "1", "v1")
    with answers(
        "ImageTagAlreadyExistsException",
        f"The image tag 'v1' already exists in the '{NAME}' repository and cannot be overwritten "
        "because the tag is immutable.",
    ):
        await push_image(ecr, "2", "v1")
    assert await images(ecr) == {(first, "v1")}
    text = manifest_text(sha256(b"config of 1"), [descriptor(sha256(b"layer of 1"))])
    with answers("ImageAlreadyExistsException"):
        await put_image(ecr, text, "v1")


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("", {}),
        ("{", {}),
        ("[]", {}),
        ("{}", {}),
        (
            '{"schemaVersion":1,"mediaType":"application/vnd.docker.distribution.manifest.v1+json"}',
            {},
        ),
        (index_text(manifests=[descriptor("sha512:" + "0" * 128, MANIFEST_TYPE)]), {}),
        (index_text(manifests=[descriptor("sha256:XY", MANIFEST_TYPE)]), {}),
        (index_text(layers=[]), {}),
        (index_text(), {"imageManifestMediaType": "text/plain"}),
        (index_text(), {"imageDigest": "sha512:" + "0" * 128}),
        (index_text(), {"imageDigest": "x"}),
        (index_text(), {"imageTag": ""}),
        (index_text(), {"imageTag": "-x"}),
        (index_text(), {"imageTag": "a/b"}),
        (index_text(), {"imageTag": "t" * 301}),
        (index_text(annotations={"x": "y" * 4_194_304}), {}),
        ("[" * 100_000, {}),
    ],
)
async def test_manifest_that_is_none_is_refused(ecr: Any, text: str, more: dict[str, Any]) -> None:
    with answers("InvalidParameterException"):
        await put_image(ecr, text, **more)
    assert await images(ecr) == set()


async def test_manifest_of_the_largest_size_is_taken(ecr: Any) -> None:
    empty = len(index_text(annotations={"x": ""}))
    text = index_text(annotations={"x": "y" * (4_194_304 - empty)})
    assert len(text) == 4_194_304
    digest = await put_image(ecr, text, "t" * 300)
    assert digest == sha256(text)


async def test_artifacts_are_refused_when_asked_for(tmp_path: Path) -> None:
    options = replace(SMALL_PARTS, refuse_artifacts=True)
    async with LocalRegistry(tmp_path, options=options).run() as server, connect(server) as ecr:
        await ecr.create_repository(repositoryName=NAME)
        config = await upload(ecr, b"config")
        subject = descriptor(NOWHERE, MANIFEST_TYPE)
        for text in (
            manifest_text(config, [], artifactType="a/b"),
            manifest_text(config, [], subject=subject),
            manifest_text(config, []).replace(CONFIG_TYPE, "application/vnd.x"),
            index_text(artifactType="a/b"),
            index_text(subject=subject),
        ):
            with answers("InvalidParameterException", "Invalid JSON syntax"):
                await put_image(ecr, text)
        await put_image(ecr, manifest_text(config, []), "v1")


async def test_images_are_described_and_listed_page_by_page(ecr: Any) -> None:
    pushed = {await push_image(ecr, str(i), f"v{i}"): f"v{i}" for i in range(5)}
    untagged = await push_image(ecr, "untagged")
    pages = ecr.get_paginator("describe_images").paginate(
        repositoryName=NAME, PaginationConfig={"PageSize": 4}
    )
    details = [detail async for page in pages for detail in page["imageDetails"]]
    assert {d["imageDigest"]: d.get("imageTags") for d in details} == {
        **{digest: [tag] for digest, tag in pushed.items()},
        untagged: None,
    }
    assert {d["imageSizeInBytes"] for d in details} == {len("config of 1layer of 1"), 35}
    assert details[0]["artifactMediaType"] == CONFIG_TYPE
    for status, expected in (
        ("TAGGED", set(pushed)),
        ("UNTAGGED", {untagged}),
        ("ANY", {*pushed, untagged}),
    ):
        wanted = {"repositoryName": NAME, "filter": {"tagStatus": status}}
        pages = ecr.get_paginator("list_images").paginate(
            **wanted, PaginationConfig={"PageSize": 2}
        )
        found = [i["imageDigest"] async for page in pages for i in page["imageIds"]]
        assert sorted(found) == sorted(expected)
        described = await ecr.describe_images(**wanted)
        assert {d["imageDigest"] for d in described["imageDetails"]} == expected
    with answers("ImageNotFoundException", "imageTag:'no'"):
        await ecr.describe_images(repositoryName=NAME, imageIds=[{"imageTag": "no"}])
    with answers("InvalidParameterException"):
        await ecr.describe_images(repositoryName=NAME, imageIds=[{}])


async def test_accepted_media_types_choose(ecr: Any) -> None:
    digest = await push_image(ecr, "1", "v1")
    answer = await ecr.batch_get_image(
        repositoryName=NAME, imageIds=[{"imageTag": "v1"}], acceptedMediaTypes=[LAYER_TYPE]
    )
    assert answer["failures"][0]["failureCode"] == "ImageNotFound"
    answer = await ecr.batch_get_image(
        repositoryName=NAME,
        imageIds=[{"imageTag": "v1", "imageDigest": digest}],
        acceptedMediaTypes=[INDEX_TYPE, MANIFEST_TYPE],
    )
    assert len(answer["images"]) == 1


async def test_images_are_deleted_by_tag_and_digest(ecr: Any) -> None:
    child = await push_image(ecr, "child", "c")
    index = await put_image(ecr, index_text(child), "v1")
    await put_image(ecr, index_text(child), "v2")

    async def delete(**image_id: str) -> Any:
        answer = await ecr.batch_delete_image(repositoryName=NAME, imageIds=[image_id])
        return answer["imageIds"] or [f["failureCode"] for f in answer["failures"]]

    assert await delete(imageTag="c") == ["ImageReferencedByManifestList"]
    assert await delete(imageTag="v1") == [{"imageDigest": index, "imageTag": "v1"}]
    assert await delete(imageTag="v1") == ["ImageNotFound"]
    assert await delete(imageDigest="x") == ["InvalidImageDigest"]
    assert await delete(imageTag="/") == ["InvalidImageTag"]
    assert await delete(imageDigest=child, imageTag="v2") == ["ImageTagDoesNotMatchDigest"]
    assert await delete(imageDigest=index) == [{"imageDigest": index, "imageTag": "v2"}]
    assert await delete(imageTag="c") == [{"imageDigest": child, "imageTag": "c"}]
    assert await images(ecr) == set()
