"""AWS Secrets Manager for the stories: moto, with its checks of signatures and policies on.

    secretsmanager.py start PORT              runs moto on 127.0.0.1:PORT
    secretsmanager.py setup URL NAME VALUE    makes a secret, a user who may read it and one who may
                                              not, then turns the checks on; prints their keys
    secretsmanager.py put URL NAME VALUE      another version of the secret
    secretsmanager.py delete URL NAME         marks it for deletion

What is put or deleted later is done with the checks off.
"""

import json
import sys
import urllib.request

import boto3

READ = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": "*"}
    ],
}


def client(service: str, url: str):
    return boto3.client(
        service, endpoint_url=url, region_name="eu-central-1",
        aws_access_key_id="setup", aws_secret_access_key="setup",
    )


def checks(url: str, after: str) -> None:
    """After how many requests signatures and policies count."""
    request = urllib.request.Request(f"{url}/moto-api/reset-auth", after.encode(),
                                     {"Content-Type": "text/plain"}, method="POST")
    urllib.request.urlopen(request).read()


match sys.argv[1:]:
    case ["start", port]:
        from moto.server import main

        main(["-H", "127.0.0.1", "-p", port])
    case ["setup", url, name, value]:
        client("secretsmanager", url).create_secret(Name=name, SecretString=value)
        iam = client("iam", url)
        keys = {}
        for user in ("reader", "stranger"):
            iam.create_user(UserName=user)
            key = iam.create_access_key(UserName=user)["AccessKey"]
            keys[user] = {"id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}
        iam.put_user_policy(
            UserName="reader", PolicyName="read", PolicyDocument=json.dumps(READ)
        )
        checks(url, "0")
        print(json.dumps(keys))
    case ["put", url, name, value]:
        checks(url, "1000000")
        client("secretsmanager", url).put_secret_value(SecretId=name, SecretString=value)
        checks(url, "0")
    case ["delete", url, name]:
        checks(url, "1000000")
        client("secretsmanager", url).delete_secret(SecretId=name)
        checks(url, "0")
    case _:
        sys.exit(__doc__)
