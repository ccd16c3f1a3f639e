Feature: Authority that is handed on shrinks, and is only its holder's
  An agent gives another one a part of what it may do, without asking the node.

  @T4 @system
  Scenario: An agent with a narrowed token can call one capability and nothing else
    Given a running node
    And an agent that holds a token for all that its key may do
    When it passes the token on to a colleague for "python.run.core" alone
    Then the colleague runs a script with it
    And the colleague may call nothing else with it
    And nobody but the colleague can use it

  @T4 @system
  Scenario: What was passed on is taken back, and nothing else with it
    Given a running node
    And an agent that holds a token for all that its key may do
    And it passes the token on to a colleague for "python.run.core" alone
    When the agent revokes what it passed on
    Then the colleague's token opens nothing
    And the agent's own token still opens the node
