"""AWS on loopback: moto's EC2, IAM, STS and SSM, made as unkind as the real ones."""
