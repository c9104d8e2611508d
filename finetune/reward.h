// All rewards: what one is, and one header a kind.
#pragma once
#include <costate/finetune/reward/analytic.h>
#include <costate/finetune/reward/callback.h>
#include <costate/finetune/reward/classifier.h>
#include <costate/finetune/reward/ensemble.h>
#include <costate/finetune/reward/f_divergence.h>
#include <costate/finetune/reward/image.h>
#include <costate/finetune/reward/proxy.h>
#include <costate/finetune/reward/reward.h>
#include <costate/finetune/reward/subprocess.h>
