"""Security groups, roles and instance profiles, as the engine makes them."""

import json
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from domain.errors import Reason
from infra.clouds.aws.errors import code_of, reason_of, unless_gone
from infra.clouds.aws.kinds import Found as Item
from infra.local_cloud.aws.provider_client import (
    AwsClient,
    pairs,
    remove,
    says,
    specification,
    told_tags,
)
from infra.local_cloud.aws.provider_networks import Ec2Resource
from infra.local_cloud.provider_programs import (
    Found,
    PartialError,
    Properties,
    ProviderError,
    Resource,
)

_ALL: Properties = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}


class SecurityGroupResource(Ec2Resource):
    """`aws:ec2/securityGroup:SecurityGroup`, with its rules inside."""

    kind = "security-group"
    told = frozenset({"name", "description", "vpcId", "ingress", "egress", "tags"})
    replace_on = frozenset({"name", "namePrefix", "description", "vpcId", "region"})
    delete_before_replace = True
    computed = frozenset({"region", "ingress", "egress", "vpcId"})
    unreadable = frozenset({"revokeRulesOnDelete"})

    def create(self, inputs: Properties) -> tuple[str, Properties]:
        """Make it, take the rule away that EC2 gives it, and set its own."""
        with says(f"creating Security Group ({inputs['name']})", "EC2"):
            answer = self.client.ec2.create_security_group(
                GroupName=inputs["name"],
                Description=inputs["description"],
                VpcId=inputs["vpcId"],
                **specification("security-group", inputs),
            )
        found = str(answer["GroupId"])
        try:
            with says(f"revoking default egress rule of Security Group ({found})", "EC2"):
                self.client.ec2.revoke_security_group_egress(GroupId=found, IpPermissions=[_ALL])
            self._set_rules(found, inputs)
        except ProviderError as failure:
            raise PartialError(found, {"name": inputs["name"]}, str(failure)) from failure
        return found, self.known(found)

    def update(
        self, resource_id: str, outputs: Properties, old: Properties, new: Properties
    ) -> Properties:
        """Change its tags and rules."""
        self.set_tags(resource_id, new)
        self._set_rules(resource_id, new)
        return self.known(resource_id)

    def delete(self, resource_id: str, outputs: Properties) -> None:
        """Remove it."""
        with says(f"deleting Security Group ({resource_id})", "EC2"):
            remove(lambda: self.client.ec2.delete_security_group(GroupId=resource_id))

    def same(self, key: str, old: object, new: object) -> bool:
        """Compare rules as sets."""
        if key in {"ingress", "egress"}:
            return _rules(old) == _rules(new)
        return super().same(key, old, new)

    def tell(self, item: Item) -> Properties:
        """Return all outputs."""
        found = item["GroupId"]
        return {
            "arn": self.client.arn(f"security-group/{found}"),
            "name": item["GroupName"],
            "description": item["Description"],
            "vpcId": item["VpcId"],
            "ingress": [_told_rule(rule, found) for rule in item["IpPermissions"]],
            "egress": [_told_rule(rule, found) for rule in item["IpPermissionsEgress"]],
            "ownerId": self.client.account,
            **told_tags(item),
        }

    def _set_rules(self, found: str, inputs: Properties) -> None:
        has = self.known(found)
        ec2 = self.client.ec2
        for key, allow, revoke in (
            ("ingress", ec2.authorize_security_group_ingress, ec2.revoke_security_group_ingress),
            ("egress", ec2.authorize_security_group_egress, ec2.revoke_security_group_egress),
        ):
            old, new = _rules(has[key]), _rules(inputs.get(key))
            with says(f"setting {key} rules of Security Group ({found})", "EC2"):
                for rule in old - new:
                    revoke(GroupId=found, IpPermissions=[_permission(rule, found)])
                for rule in new - old:
                    allow(GroupId=found, IpPermissions=[_permission(rule, found)])


# A rule that can be compared: protocol, ports, addresses, whether from the group itself.
_Rule = tuple[str, int, int, tuple[str, ...], bool]


def _rules(rules: object) -> set[_Rule]:
    found = rules if isinstance(rules, list) else []
    return {
        (
            str(rule["protocol"]),
            int(rule.get("fromPort") or 0),
            int(rule.get("toPort") or 0),
            tuple(sorted(rule.get("cidrBlocks") or ())),
            bool(rule.get("self")),
        )
        for rule in found
    }


def _told_rule(permission: Item, group_id: str) -> Properties:
    told: Properties = {
        "protocol": permission["IpProtocol"],
        "fromPort": permission.get("FromPort") or 0,
        "toPort": permission.get("ToPort") or 0,
    }
    cidrs = [block["CidrIp"] for block in permission.get("IpRanges", [])]
    groups = [pair["GroupId"] for pair in permission.get("UserIdGroupPairs", [])]
    if cidrs:
        told["cidrBlocks"] = cidrs
    if group_id in groups:
        told["self"] = True
    return told


def _permission(rule: _Rule, group_id: str) -> dict[str, Any]:
    protocol, first, last, cidrs, itself = rule
    permission: dict[str, Any] = {"IpProtocol": protocol}
    if protocol != "-1":
        permission |= {"FromPort": first, "ToPort": last}
    if cidrs:
        permission["IpRanges"] = [{"CidrIp": cidr} for cidr in cidrs]
    if itself:
        permission["UserIdGroupPairs"] = [{"GroupId": group_id}]
    return permission


class RoleResource(Resource[AwsClient]):
    """`aws:iam/role:Role`, without policies inside. Its id is its name."""

    replace_on = frozenset({"name", "namePrefix", "path"})
    delete_before_replace = True
    computed = frozenset({"path", "maxSessionDuration", "name", "description"})
    unreadable = frozenset({"forceDetachPolicies"})

    def create(self, inputs: Properties) -> tuple[str, Properties]:
        """Make it; a role of the name is never taken over."""
        name = str(inputs["name"])
        with says(f"creating IAM Role ({name})", "IAM"):
            self.client.iam.create_role(
                RoleName=name,
                Path=inputs.get("path", "/"),
                AssumeRolePolicyDocument=inputs["assumeRolePolicy"],
                Tags=pairs(inputs.get("tags") or {}),
            )
        return name, self._known(name)

    def read(self, resource_id: str, inputs: Properties) -> Found | None:
        """Read it."""
        with says(f"reading IAM Role ({resource_id})", "IAM"):
            answer = _unless_gone(lambda: self.client.iam.get_role(RoleName=resource_id))
        if answer is None:
            return None
        outputs = _role_outputs(answer["Role"])
        names = ("name", "path", "assumeRolePolicy", "tags")
        return Found(resource_id, outputs, {name: outputs[name] for name in names})

    def update(
        self, resource_id: str, outputs: Properties, old: Properties, new: Properties
    ) -> Properties:
        """Change whom it trusts, and its tags."""
        iam = self.client.iam
        with says(f"updating IAM Role ({resource_id})", "IAM"):
            iam.update_assume_role_policy(
                RoleName=resource_id, PolicyDocument=new["assumeRolePolicy"]
            )
            gone = (old.get("tags") or {}).keys() - (new.get("tags") or {}).keys()
            iam.untag_role(RoleName=resource_id, TagKeys=sorted(gone))
            iam.tag_role(RoleName=resource_id, Tags=pairs(new.get("tags") or {}))
        return self._known(resource_id)

    def delete(self, resource_id: str, outputs: Properties) -> None:
        """Remove it."""
        with says(f"deleting IAM Role ({resource_id})", "IAM"):
            remove(lambda: self.client.iam.delete_role(RoleName=resource_id))

    def same(self, key: str, old: Any, new: Any) -> bool:
        """Compare policies by what they say."""
        if key == "assumeRolePolicy" and isinstance(old, str) and isinstance(new, str):
            return bool(json.loads(old) == json.loads(new))
        return super().same(key, old, new)

    def _known(self, name: str) -> Properties:
        with says(f"reading IAM Role ({name})", "IAM"):
            return _role_outputs(self.client.iam.get_role(RoleName=name)["Role"])


def _role_outputs(role: Item) -> Properties:
    return {
        "arn": role["Arn"],
        "name": role["RoleName"],
        "path": role["Path"],
        "uniqueId": role["RoleId"],
        "assumeRolePolicy": json.dumps(role["AssumeRolePolicyDocument"]),
        "createDate": role["CreateDate"].isoformat(),
        "maxSessionDuration": role.get("MaxSessionDuration", 3600),
        **told_tags(role),
    }


class InstanceProfileResource(Resource[AwsClient]):
    """`aws:iam/instanceProfile:InstanceProfile`. Its id is its name."""

    replace_on = frozenset({"name", "namePrefix", "path"})
    delete_before_replace = True
    computed = frozenset({"path", "name"})

    def create(self, inputs: Properties) -> tuple[str, Properties]:
        """Make it, and then put its role in."""
        name = str(inputs["name"])
        with says(f"creating IAM Instance Profile ({name})", "IAM"):
            self.client.iam.create_instance_profile(
                InstanceProfileName=name,
                Path=inputs.get("path", "/"),
                Tags=pairs(inputs.get("tags") or {}),
            )
        try:
            self._set_role(name, inputs.get("role"))
        except ProviderError as failure:
            raise PartialError(name, {"name": name}, str(failure)) from failure
        return name, self._known(name)

    def read(self, resource_id: str, inputs: Properties) -> Found | None:
        """Read it."""
        iam = self.client.iam
        with says(f"reading IAM Instance Profile ({resource_id})", "IAM"):
            answer = _unless_gone(lambda: iam.get_instance_profile(InstanceProfileName=resource_id))
        if answer is None:
            return None
        outputs = _profile_outputs(answer["InstanceProfile"])
        names = ("name", "path", "role", "tags")
        return Found(resource_id, outputs, {name: outputs[name] for name in names})

    def update(
        self, resource_id: str, outputs: Properties, old: Properties, new: Properties
    ) -> Properties:
        """Change its role and tags."""
        iam = self.client.iam
        self._set_role(resource_id, new.get("role"))
        with says(f"updating IAM Instance Profile ({resource_id})", "IAM"):
            gone = (old.get("tags") or {}).keys() - (new.get("tags") or {}).keys()
            iam.untag_instance_profile(InstanceProfileName=resource_id, TagKeys=sorted(gone))
            tags = pairs(new.get("tags") or {})
            iam.tag_instance_profile(InstanceProfileName=resource_id, Tags=tags)
        return self._known(resource_id)

    def delete(self, resource_id: str, outputs: Properties) -> None:
        """Take its role out and remove it."""
        iam = self.client.iam
        with says(f"deleting IAM Instance Profile ({resource_id})", "IAM"):
            role = outputs.get("role")
            if role:
                arguments = {"InstanceProfileName": resource_id, "RoleName": role}
                unless_gone(iam.remove_role_from_instance_profile, **arguments)
            remove(lambda: iam.delete_instance_profile(InstanceProfileName=resource_id))

    def _known(self, name: str) -> Properties:
        with says(f"reading IAM Instance Profile ({name})", "IAM"):
            answer = self.client.iam.get_instance_profile(InstanceProfileName=name)
        return _profile_outputs(answer["InstanceProfile"])

    def _set_role(self, name: str, role: str | None) -> None:
        has = self._known(name).get("role")
        if has == role:
            return
        iam = self.client.iam
        with says(f"setting the role of IAM Instance Profile ({name})", "IAM"):
            if has:
                iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=has)
            if role:
                iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=role)


def _profile_outputs(profile: Item) -> Properties:
    role: Item = next(iter(profile["Roles"]), {})
    return {
        "arn": profile["Arn"],
        "name": profile["InstanceProfileName"],
        "path": profile["Path"],
        "uniqueId": profile["InstanceProfileId"],
        "role": role.get("RoleName"),
        "createDate": profile["CreateDate"].isoformat(),
        **told_tags(profile),
    }


def _unless_gone(call: Callable[[], Item]) -> Item | None:
    try:
        return call()
    except ClientError as error:
        if reason_of(code_of(error)) is not Reason.NOT_FOUND:
            raise
        return None
