Feature: An agent reaches the node by MCP
  A user's chat program starts `crank mcp`, and its model does real work on the user's own machine.

  @U1 @T4 @system
  Scenario: An agent works through a folder of the user's
    Given a running node
    And the user has mounted a folder of 40 notes, of which one is broken
    And a host whose agent speaks MCP over crank mcp
    When the agent finds the folder and submits a script over all of its files
    Then the agent is told how it goes while the script runs
    And the agent gets a result that names the broken note
    And the user finds an output for each good note, with its hash
    And the user's notes are unchanged
    And nothing that the agent was told names a path of the user's machine

  @U1 @T4 @system
  Scenario: An agent that tries what it may not gets an answer that helps
    Given a running node
    And a host whose agent speaks MCP over crank mcp
    When the agent asks for a folder that nobody mounted
    Then the agent is told what is wrong and what to do
    And no job was made of it
