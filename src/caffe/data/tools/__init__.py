"""Implementation of the data commands: conversion, database inspection, statistics, feature files."""
