"""The fixture ``local_ecr``, as a project of somebody else's uses it."""

from __future__ import annotations

import pytest

CONFTEST = 'pytest_plugins = ["asyncpush.testing.plugin"]\n'


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project whose developer has credentials that no test must ever use."""
    for name, value in {
        "AWS_PROFILE": "production",
        "AWS_SESSION_TOKEN": "a-token-of-production",
        "AWS_ACCESS_KEY_ID": "AKIDPRODUCTION000000",
    }.items():
        monkeypatch.setenv(name, value)
    pytester.makeconftest(CONFTEST)
    return pytester


def passes(project: pytest.Pytester, count: int, source: str) -> None:
    project.makepyfile(source)
    project.runpytest_subprocess("-W", "error", "-q").assert_outcomes(passed=count)


def test_plain_and_async_tests_and_programs_push_to_it(project: pytest.Pytester) -> None:
    passes(
        project,
        3,
        """
        import os, subprocess, sys
        import anyio, boto3, pytest
        from asyncpush import Pusher, PushItem, PushOptions
        from asyncpush.testing import LocalEcr, write_sample


        @pytest.fixture
        def layout(tmp_path):
            return write_sample(tmp_path / "app", images=2, base_bytes=5000)


        def test_a_program(local_ecr: LocalEcr, layout) -> None:
            target = local_ecr.create("team/app", immutable=True)
            subprocess.run([sys.executable, "-m", "asyncpush", "push", layout, target], check=True)
            assert "service-01" in local_ecr.tags("team/app")
            assert len(local_ecr.calls("PutImage")) == 7
            assert {call.repository for call in local_ecr.calls("PutImage")} == {"team/app"}


        @pytest.fixture
        def anyio_backend() -> str:
            return "asyncio"


        @pytest.mark.anyio
        async def test_async_code(local_ecr: LocalEcr, layout) -> None:
            target = local_ecr.create("team/app", region="eu-west-1")
            async with Pusher(PushOptions(aws=local_ecr.aws)) as pusher:
                report = await pusher.push([PushItem(layout, target)])
            assert report.ok
            assert "gateway" in local_ecr.tags("team/app", region="eu-west-1")


        def test_the_next_test_finds_nothing_of_them(local_ecr: LocalEcr) -> None:
            assert boto3.client("ecr").describe_repositories()["repositories"] == []
            assert [call.action for call in local_ecr.calls()] == ["DescribeRepositories"]
            assert "AWS_PROFILE" not in os.environ
            local_ecr.clear()
            assert local_ecr.calls() == []
        """,
    )


def test_faults_are_met_as_often_as_asked(project: pytest.Pytester) -> None:
    passes(
        project,
        1,
        """
        import boto3, pytest
        from botocore.config import Config
        from botocore.exceptions import ClientError
        from asyncpush.testing import Fault


        def test_faults(local_ecr) -> None:
            local_ecr.create("a/one"), local_ecr.create("a/two")
            client = boto3.client("ecr", config=Config(retries={"total_max_attempts": 1}))
            local_ecr.inject(
                "InitiateLayerUpload", Fault(code="ThrottlingException"), repository="a/one"
            )
            local_ecr.inject("PutImage", Fault(drop="before"), times=2)

            client.initiate_layer_upload(repositoryName="a/two")
            with pytest.raises(ClientError, match="ThrottlingException"):
                client.initiate_layer_upload(repositoryName="a/one")
            client.initiate_layer_upload(repositoryName="a/one")

            assert local_ecr.faults_left() == {"PutImage": 2}
            local_ecr.clear()
            assert local_ecr.faults_left() == {}
        """,
    )


def test_settings_choose_account_policy_and_limits(project: pytest.Pytester) -> None:
    passes(
        project,
        1,
        """
        import boto3, pytest
        from botocore.exceptions import ClientError
        from asyncpush.testing import Fault, Key, LocalEcrSettings, LocalRegistryOptions

        def second_upload(call):
            if (call.action, call.number) == ("InitiateLayerUpload", 2):
                return Fault(code="ServerException")


        OTHER = Key("AKIDOFTHEOTHERACCOUN", "its-secret", "444455556666")


        @pytest.fixture
        def local_ecr_settings() -> LocalEcrSettings:
            allow = {"Effect": "Allow", "Action": "ecr:InitiateLayerUpload", "Resource": "*"}
            return LocalEcrSettings(
                account="111122223333",
                region="eu-central-1",
                policy={"Version": "2012-10-17", "Statement": [allow]},
                keys=[OTHER],
                options=LocalRegistryOptions(
                    part_size=5 * 1024 * 1024, faults=second_upload
                ),
            )


        def test_settings(local_ecr) -> None:
            assert local_ecr.create("app") == "111122223333.dkr.ecr.eu-central-1.amazonaws.com/app"
            client = boto3.client("ecr")
            answer = client.initiate_layer_upload(repositoryName="app")
            assert answer["partSize"] == 5 * 1024 * 1024
            with pytest.raises(ClientError, match="ServerException"):
                client.initiate_layer_upload(repositoryName="app")
            with pytest.raises(ClientError, match="AccessDenied"):
                client.describe_repositories()

            there = local_ecr.create("app", account="444455556666", region="cn-north-1")
            assert there == "444455556666.dkr.ecr.cn-north-1.amazonaws.com.cn/app"
            other = boto3.client(
                "ecr",
                region_name="cn-north-1",
                endpoint_url=local_ecr.url,
                aws_access_key_id=OTHER.access_key_id,
                aws_secret_access_key=OTHER.secret_access_key,
            )
            (repository,) = other.describe_repositories()["repositories"]
            assert repository["registryId"] == "444455556666"
        """,
    )
